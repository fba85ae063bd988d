/* BlockMessage of proto/plugin_host.proto, read where it lies in the bytes that a peer sent. Knows nothing of Python.
 *
 * Nothing is copied and nothing allocated. What is read means what Google's protobuf reads out of the same bytes, and what it
 * refuses is refused: the last of a repeated field counts, submessages that come twice are merged, the last member of the body
 * takes the place of the others, unknown fields and fields of another wire type are skipped.
 *
 * Of the bodies only those are read here of which there may be very many. The others are checked, and their bytes are handed on.
 * A batch is checked while its messages are read.
 */
#ifndef SUPERVM_REMOTE_MESSAGE_H
#define SUPERVM_REMOTE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE_MAX_DEPTH 100 /* Submessages and groups inside one another. */
#define MESSAGE_MAX_BATCH 8192
#define MESSAGE_MAX_ORPHANS 65536

enum message_fault {
    MESSAGE_SOUND,
    /* The encoding. */
    MESSAGE_ENDS_EARLY,
    MESSAGE_LONG_VARINT,
    MESSAGE_BAD_TAG,
    MESSAGE_BAD_GROUP,
    MESSAGE_TOO_DEEP,
    MESSAGE_NOT_UTF8,
    /* What is said. */
    MESSAGE_OTHER_CHAIN,
    MESSAGE_LONG_HASH,
    MESSAGE_LONG_PARENT,
    MESSAGE_LONG_WEIGHT,
    MESSAGE_LONG_POSITION,
    MESSAGE_BAD_TIME,
    MESSAGE_STEP,
    MESSAGE_GENESIS,
    MESSAGE_HEIGHT,
    MESSAGE_REORG_UPWARDS,
    MESSAGE_MANY_ORPHANS,
    MESSAGE_ORPHAN_LENGTH,
    MESSAGE_FINAL_HASH,
    MESSAGE_BATCH_IN_BATCH,
    MESSAGE_NOT_IN_BATCH,
    MESSAGE_LONG_BATCH,
};

/* Numbers of the body's members; 0: there is none, and the message is a block. */
enum message_body {
    MESSAGE_BLOCK = 0,
    MESSAGE_REORG = 20,
    MESSAGE_FINALIZED = 21,
    MESSAGE_END_OF_INPUT = 22,
    MESSAGE_BATCH = 23,
    MESSAGE_LAST_BODY = 37,
};

struct span {
    const uint8_t *bytes;
    size_t length;
};

struct message {
    struct span whole;
    /* From here on, pieces of the body are of the member that counts. */
    const uint8_t *body_begin;
    uint32_t body;
    uint32_t orphan_length; /* Bytes of each orphan; 0 where there are none. */
    struct span chain;
    struct span payload;
    struct span hash;
    struct span parent;
    struct span weight;
    struct span position;
    uint64_t height;       /* SUPERVM_HEIGHT_UNKNOWN where not said. */
    uint64_t final_height; /* Likewise. */
    int64_t time;          /* Nanoseconds since the epoch, or SUPERVM_TIME_UNKNOWN. */
    /* MESSAGE_REORG. */
    struct span reorg_chain;
    uint64_t from_height;
    uint64_t to_height;
    size_t orphan_count;
    /* MESSAGE_FINALIZED. */
    uint64_t finalized_height;
    struct span finalized_hash;
};

/* Reads a whole message that came over the exchange. chain: what the message may name as its chain; without bytes: anything. After a
 * fault of the encoding *at is the byte at which it was found. */
enum message_fault message_read(struct span whole, struct span chain, struct message *message, size_t *at);

/* The messages of a batch, one after another. All zero but the batch at first. */
struct batch {
    const struct message *message;
    const uint8_t *place; /* Behind the piece that is read. */
    struct span rest;     /* Of that piece. */
    size_t count;         /* Messages read. */
};

/* Reads the next message. false: there is none left, or *fault is set; *at is then as above. */
bool batch_next(struct batch *batch, struct span chain, struct message *message, enum message_fault *fault, size_t *at);

/* The next piece of the body; the pieces one behind the other are the submessage. *place is NULL at first. false: none is left. */
bool message_piece(const struct message *message, const uint8_t **place, struct span *piece);

/* Copies the orphans of a reorg, one behind the other, into orphan_count * orphan_length bytes. */
void message_orphans(const struct message *message, uint8_t *to, size_t length);

#endif
