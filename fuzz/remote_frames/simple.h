/* A reader of protobuf that is slow and simple: it looks a message through anew for each field. */
#ifndef FUZZ_REMOTE_FRAMES_SIMPLE_H
#define FUZZ_REMOTE_FRAMES_SIMPLE_H

#include "message.h"

/* One field with its tag. */
struct part {
    struct span whole;
    uint32_t number;
    uint32_t type;
    uint64_t value;
    struct span content;
};

/* The field at the beginning of these bytes; a group is one, up to its end. false: there is none. */
bool simple_part(struct span bytes, struct part *part);

/* Whether these bytes are whole fields. */
bool simple_is_framed(struct span bytes);

/* The last field of this number and wire type. false: there is none. */
bool simple_last(struct span bytes, uint32_t number, uint32_t type, struct part *part);

/* The submessage of this number, merged, into to, which has room for all bytes. Of pieces only those count behind which no other field
 * with a number from first to last stands. */
size_t simple_merged(struct span bytes, uint32_t number, uint32_t first, uint32_t last, uint8_t *to);

#endif
