/* Gives payloads that were published without a copy back to their plugin, on a thread of its own.
 *
 * Foreign code may take its time or never return; so it runs neither under the GIL nor on the host's loop. The queue needs no
 * bound of its own: each item was allocated when its block was published.
 */
#ifndef SUPERVM_NATIVE_RELEASER_H
#define SUPERVM_NATIVE_RELEASER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct frame_core;

/* A payload in the plugin's memory. Its address travels in the ring. */
struct external {
    const uint8_t *payload;
    uint64_t length;
    void (*release)(void *argument);
    void *argument;
    struct external *next; /* In the releaser's queue, or in the reader's list of externals that frames hold. */
    struct external *previous;
    struct frame_core *frame;
};

struct releaser {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct external *first;
    struct external *last;
    pthread_t thread;
    bool started;
    bool ending;
    _Atomic uint32_t ended; /* 1 once the thread has nothing left to do; a futex. */
    _Atomic int32_t thread_id;
    char name[16]; /* Of the thread while a release runs: threads that it starts inherit it. Set at load. */
};

void releaser_init(struct releaser *releaser);

/* Starts the thread if it does not run yet. 0, or an errno. The callers are serialised by the producers' lock. */
int releaser_start(struct releaser *releaser);

/* Queues one item, whose release then runs exactly once. Needs a started releaser. */
void releaser_push(struct releaser *releaser, struct external *external);

/* Lets the thread run what is queued, and ends it. false: a release has not returned within timeout_ns; the thread is left. */
bool releaser_finish(struct releaser *releaser, int64_t timeout_ns);

#endif
