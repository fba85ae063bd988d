/* Waiting and waking: a futex for the plugin's threads, an eventfd for the host's loop.
 *
 * The host sleeps on the eventfd. Writing it costs a system call, so a plugin's thread writes it only while the host sleeps, and
 * once per sleep. The host announces a sleep by making the generation odd, then looks once more for work; a thread publishes its
 * work, then looks at the generation. Both have a full fence between the two steps, so at least one sees the other.
 */
#ifndef SUPERVM_NATIVE_WAIT_H
#define SUPERVM_NATIVE_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sleeps while *word == expected, at most timeout_ns (negative: without end). May return early; the caller looks again. */
void futex_wait(const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
void futex_wake_all(const _Atomic uint32_t *word);

/* Nanoseconds of CLOCK_MONOTONIC. The coarse one is a few milliseconds behind and costs next to nothing. */
int64_t clock_now(void);
int64_t clock_now_coarse(void);

/* The words live in shared memory: generation is the host's, woken is written by the plugin's side. */
struct doorbell {
    _Atomic uint64_t *generation; /* Odd while the host sleeps. */
    _Atomic uint64_t *woken;      /* The generation for which the eventfd was last written. */
    _Atomic uint64_t *wakeups;
    int event_fd;
};

/* Wakes the host if it sleeps. The caller has published its work and passed a seq_cst fence. Any thread, any signal handler. */
void doorbell_ring(const struct doorbell *bell);

/* doorbell_ring after its fence. */
void doorbell_ring_fenced(const struct doorbell *bell);

/* The host's side: announce a sleep, look once more for work, and either retract at once or sleep, retract and empty. */
void doorbell_announce(const struct doorbell *bell);
void doorbell_retract(const struct doorbell *bell);
void doorbell_empty(const struct doorbell *bell);
bool doorbell_announced(const struct doorbell *bell);

#endif
