/* A ring of records: one producer at a time, one consumer, in memory that two processes can share.
 *
 * The data area is mapped twice, back to back, so that a record is always contiguous. Head and tail only grow; the place of a
 * position is position & (capacity - 1). Records begin and end on 64-byte bounds.
 *
 * The control words are split over two memfds: the producer's, with its words and the data, and the host's, which a child maps
 * read-only and cannot map otherwise. The consumer takes the producer's words for what they are, claims: it loads each once and
 * checks it. Tail, read position and capacity it keeps for itself as well, and never reads back.
 */
#ifndef SUPERVM_NATIVE_RING_H
#define SUPERVM_NATIVE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wait.h"

#define RING_ALIGNMENT 64u
#define RING_MINIMUM_CAPACITY (UINT64_C(1) << 16)
#define RING_MAXIMUM_CAPACITY (UINT64_C(1) << 36)

#define SUPERVM_RING_PAGE(type) _Static_assert(sizeof(type) <= 4096, "fits a page")

/* What the plugin's side tells beside its records. */
struct plugin_words {
    _Alignas(64) _Atomic int64_t last_sign;   /* CLOCK_MONOTONIC nanoseconds of the last beat, publish or start. */
    _Alignas(64) _Atomic uint64_t shutdown;   /* PLUGIN_SHUTDOWN_ASKED and the reason in the low 32 bits; 0: not asked. */
    _Atomic uint64_t dropped_messages;
    _Atomic uint32_t heartbeat_asked;
    _Atomic uint32_t lock_waiters; /* Threads that wait for the producers' lock. */
    _Atomic uint32_t notice;       /* Something beside the rings happened since the host last prepared to wait. */
};

#define PLUGIN_SHUTDOWN_ASKED (UINT64_C(1) << 32)

struct ring_producer_page {
    _Alignas(64) _Atomic uint64_t head;    /* Position after the last published record. */
    _Alignas(64) _Atomic uint32_t waiting; /* 1 while a producer sleeps until there is room. */
    _Atomic uint64_t wanted;               /* Bytes that a producer lacked room for when it last asked; 0: it got them. */
    _Atomic uint64_t waits;                /* How often a producer slept. */
    _Alignas(64) _Atomic uint64_t woken;   /* See struct doorbell. */
    _Atomic uint64_t wakeups;
    struct plugin_words words; /* Of a block ring. */
};

SUPERVM_RING_PAGE(struct ring_producer_page);

struct ring_host_page {
    _Alignas(64) _Atomic uint64_t tail;       /* Position of the oldest record that still needs its place. */
    _Atomic uint32_t space_sequence;          /* What a producer sleeps on; grows when there is new room. */
    _Alignas(64) _Atomic uint64_t generation; /* See struct doorbell. */
    _Atomic uint32_t stop;                    /* 1: no more waiting, no more publishing. */
    _Atomic uint32_t route;                   /* Something serves the chain of a submitted transaction. */
};

SUPERVM_RING_PAGE(struct ring_host_page);

struct ring {
    struct ring_producer_page *producer;
    struct ring_host_page *host;
    uint8_t *data;
    uint64_t capacity;
    uint8_t *area; /* The producer's words, the data, the data again, the host's words. */
    size_t area_bytes;
    int producer_fd; /* The memfds, -1 once they are closed. */
    int host_fd;
    /* The producer's own. */
    _Alignas(64) uint64_t head;
    uint64_t known_tail;
    bool asked; /* wanted is set. */
    uint32_t forks; /* ring_forks when it was made: in a forked child the shared words belong to the parent. */
    /* The consumer's own; never read back from shared memory. */
    _Alignas(64) uint64_t read_position;
    uint64_t tail;
};

extern uint32_t ring_forks;

/* Whether this process made the ring, rather than inherit it by fork. */
static inline bool ring_is_mine(const struct ring *ring)
{
    return ring->forks == ring_forks;
}

/* capacity: a power of two between the bounds above. 0, or an errno. The memfds stay open until ring_close_fds. */
int ring_create(struct ring *ring, uint64_t capacity);
void ring_close_fds(struct ring *ring);
void ring_destroy(struct ring *ring);

/* The producer's side in a child: maps what ring_create made there, the host's words read-only. 0, or an errno. The descriptors
 * stay the caller's. */
int ring_attach(struct ring *ring, uint64_t capacity, int producer_fd, int host_fd);

static inline uint8_t *ring_at(const struct ring *ring, uint64_t position)
{
    return ring->data + (position & (ring->capacity - 1));
}

static inline uint64_t ring_round(uint64_t length)
{
    return (length + RING_ALIGNMENT - 1) & ~(uint64_t)(RING_ALIGNMENT - 1);
}

/* The doorbell whose words are in this ring. */
static inline struct doorbell ring_bell(const struct ring *ring, int event_fd)
{
    return (struct doorbell){
        .generation = &ring->host->generation,
        .woken = &ring->producer->woken,
        .wakeups = &ring->producer->wakeups,
        .event_fd = event_fd,
    };
}

/* ---- the producer's side; the caller holds the producers' lock ---- */

/* Room for length bytes at the head, length a multiple of 64 and at most the capacity. Without room: rings the bell, so that the
 * host can give up places it only keeps, and waits (SUPERVM_STOPPING when that ends) or answers SUPERVM_WOULD_BLOCK. */
int32_t ring_claim(struct ring *ring, uint64_t length, bool wait, const struct doorbell *bell, uint8_t **record);

/* Publishes the length bytes at the head. The caller then passes a seq_cst fence and rings the bell. */
void ring_publish(struct ring *ring, uint64_t length);

/* ---- the consumer's side ---- */

/* Between copying something out of the ring and judging the copy: the compiler must not read the original again. */
static inline void ring_snapshot(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Loads the head. false: it is a lie. */
bool ring_look(const struct ring *ring, uint64_t *head);

/* Gives back everything below position, and wakes a producer that waits for room. */
void ring_free(struct ring *ring, uint64_t position);

/* Ends every wait of the producer's side, now and later. */
void ring_stop(struct ring *ring);

static inline bool ring_stopped(const struct ring *ring)
{
    return atomic_load_explicit(&ring->host->stop, memory_order_acquire) != 0;
}

#endif
