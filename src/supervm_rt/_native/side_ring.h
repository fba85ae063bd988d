/* The second, lossy ring: log lines, metric samples and transactions, from any thread, also from a signal handler.
 *
 * Nothing here waits. Where there is no room, or the lock cannot be had at once, the answer says so.
 */
#ifndef SUPERVM_NATIVE_SIDE_RING_H
#define SUPERVM_NATIVE_SIDE_RING_H

#include "lock.h"
#include "ring.h"

enum message_kind { MESSAGE_LOG = 1, MESSAGE_METRIC = 2, MESSAGE_TRANSACTION = 3 };

struct message_header {
    uint64_t total_length; /* With this header, a multiple of 64. */
    uint64_t data_length;  /* The transaction's bytes, after the text. */
    double value;          /* MESSAGE_METRIC. */
    uint32_t text_length;  /* Log text, metric name or chain, after the header. */
    int32_t level;         /* MESSAGE_LOG. */
    uint32_t kind;
    uint32_t reserved;
};

struct side_ring {
    struct ring ring;
    struct owner_lock lock;
    struct doorbell bell; /* The block ring's: the host sleeps in one place. */
    uint64_t messages;    /* Read so far. */
};

/* 0, or an errno. */
int side_ring_create(struct side_ring *side, uint64_t capacity, const struct doorbell *bell);
/* The producer's side in a child; see ring_attach. */
int side_ring_attach(struct side_ring *side, uint64_t capacity, int producer_fd, int host_fd, const struct doorbell *bell);
void side_ring_destroy(struct side_ring *side);

/* header says the lengths and everything but total_length. SUPERVM_OK, _QUEUE_FULL, _TOO_LARGE or _BUSY. */
int32_t side_ring_put(struct side_ring *side, const struct message_header *header, const void *text, const void *data);

/* Reads the oldest message: a checked copy of its header, and where its text and data are until side_ring_done.
 * 1: there is one. 0: there is none. -1: the ring is corrupt. */
int side_ring_next(struct side_ring *side, struct message_header *header, const uint8_t **text, const uint8_t **data);
void side_ring_done(struct side_ring *side, const struct message_header *header);

#endif
