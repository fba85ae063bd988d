/* The consumer of one block ring, and what it keeps of the frames it gave out.
 *
 * A frame that was read pins its record: the tail does not pass it. Frames are released in any order; the tail follows the
 * oldest that is left. When the producer lacks room that kept frames hold, the oldest of them are copied out of the ring, except
 * those whose buffer is exported. Nothing here takes a lock: one thread at a time may be in here, which for Python is whoever
 * holds the GIL.
 *
 * Another process may change what it published, so nothing is judged or used where such a producer can write. Records of a shared
 * ring are copied, a stretch of many at once, to a landing of the host's own, and frames pin their place there instead, by the
 * same rules. A stretch is short and the landing begins again whenever it is empty, so that the copies stay in the cache.
 */
#ifndef SUPERVM_NATIVE_READER_H
#define SUPERVM_NATIVE_READER_H

#include "record.h"
#include "releaser.h"
#include "ring.h"

struct reader;

/* What a frame object embeds. All zero: an empty frame. */
struct frame_core {
    struct reader *reader;      /* Held while in_place or external; else NULL. */
    uint64_t sequence;          /* Index among the reader's places, while in_place. */
    const uint8_t *record;      /* In the ring or the landing, or a block of its own. */
    const uint8_t *outside;     /* Of a frame that came through no ring: its payload. The record then holds the tails alone. */
    struct external *external;  /* The payload is in the plugin's memory. */
    uint64_t generation;        /* Of the plugin that said it. */
    uint32_t exports;           /* Buffers that are out. */
    uint32_t in_place;          /* record lies in the ring or the landing and pins it. */
    struct record_header header; /* Read once, checked, and from then on the only truth. */
};

struct reader_place {
    uint64_t end;             /* Position after the record, in the ring or the landing. */
    struct frame_core *frame; /* NULL once the frame no longer needs the place. */
};

/* Where records of a shared ring are copied to; as large as the ring. Positions in it only grow until it begins again; no record
 * crosses its end. */
struct landing {
    uint8_t *bytes; /* NULL: the producer shares the process, and frames lie in the ring. */
    uint64_t next;  /* Position of the copy of what lies at the ring's read position. */
    uint64_t until; /* Ring position up to which there are copies. */
    bool open;      /* Nothing was given out since the last look: another stretch may be copied. */
};

/* What is copied at once: about what one processor's cache holds, and much beside what taking a batch costs. */
#define LANDING_STRETCH (UINT64_C(1) << 20)

struct reader {
    struct ring ring;
    struct doorbell bell; /* Its words live in the ring. */
    struct releaser *releaser; /* NULL: externals are not allowed. */
    uint64_t generation;
    uint64_t head;        /* The head as last loaded. */
    struct reader_place *places; /* As many as records fit the ring. */
    uint64_t place_mask;
    uint64_t first; /* Oldest place in use. */
    uint64_t next;  /* After the newest. */
    uint64_t pinned_frames;
    uint64_t exported_bytes;
    uint64_t freed;      /* Position up to which no place is needed, of the ring or the landing. The ring's is told the producer from
                            time to time. */
    struct landing landing;
    uint64_t references; /* The plugin's and one per frame core that points here. */
    struct external *externals; /* Those that living frames hold. */
    uint64_t frames;
    uint64_t bytes;
    uint64_t copied_out;
    bool corrupt;
    bool detached; /* The plugin is gone; only frames are left. */
};

/* NULL with errno set: no memory. event_fd stays the caller's. Without a releaser the ring is shared with another process. */
struct reader *reader_create(uint64_t capacity, uint64_t generation, int event_fd, struct releaser *releaser);
void reader_unref(struct reader *reader);

/* Loads the head and makes room if the producer needs it. -1: the ring is corrupt. Else whether there is a record to read. */
int reader_look(struct reader *reader);

/* Bytes between the oldest record that needs its place in the ring and the head. Changes nothing. */
uint64_t reader_used(const struct reader *reader);

/* Reads the next record up to the head of the last look into *frame, which is all zero. 1: done. 0: none left, or none that was
 * copied to the landing with those before it: look again. -1: corrupt. -2: no memory, and nothing is lost. */
int reader_next(struct reader *reader, struct frame_core *frame);

/* Frees what can be freed, announces a sleep and looks once more. false: there is work, and nothing was announced. */
bool reader_prepare_wait(struct reader *reader);

/* The frame is gone: its place is free, its external payload goes back. */
void frame_drop(struct frame_core *frame);

/* One buffer goes out or comes back. frame_pin answers false where it had to copy and there was no memory. */
bool frame_pin(struct frame_core *frame);
void frame_unpin(struct frame_core *frame);

static inline const uint8_t *frame_payload(const struct frame_core *frame)
{
    if (frame->external)
        return frame->external->payload;
    return frame->outside ? frame->outside : frame->record + sizeof(struct record_header);
}

/* The bytes that follow the payload: hash, parent, weight, position. */
static inline const uint8_t *frame_tails(const struct frame_core *frame)
{
    if (frame->outside)
        return frame->record;
    return frame->record + sizeof(struct record_header) + record_stored_length(&frame->header);
}

/* Before the library is unmapped: copies living frames out and hands every external payload to the releaser, those of unread
 * records too. Nobody publishes any more. The answer is the number of frames whose external payload cannot be taken away
 * because its buffer is exported (or because there is no memory); frames exported from the ring keep the ring. */
uint64_t reader_detach(struct reader *reader);

#endif
