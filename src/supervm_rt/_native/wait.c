#define _GNU_SOURCE
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

void futex_wait(const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    int saved = errno;
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns < 0 ? NULL : &timeout, NULL, 0);
    errno = saved;
}

void futex_wake_all(const _Atomic uint32_t *word)
{
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    errno = saved;
}

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_now_coarse(void)
{
    return read_clock(CLOCK_MONOTONIC_COARSE);
}

void doorbell_ring(const struct doorbell *bell)
{
    uint64_t generation = atomic_load_explicit(bell->generation, memory_order_relaxed);
    if ((generation & 1) == 0)
        return;
    if (atomic_exchange_explicit(bell->woken, generation, memory_order_relaxed) == generation)
        return;
    atomic_fetch_add_explicit(bell->wakeups, 1, memory_order_relaxed);
    int saved = errno;
    uint64_t one = 1;
    /* Fails only where the counter is full, and then the host is awake. */
    ssize_t written = write(bell->event_fd, &one, sizeof one);
    (void)written;
    errno = saved;
}

void doorbell_ring_fenced(const struct doorbell *bell)
{
    atomic_thread_fence(memory_order_seq_cst);
    doorbell_ring(bell);
}

void doorbell_announce(const struct doorbell *bell)
{
    atomic_fetch_add_explicit(bell->generation, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

void doorbell_retract(const struct doorbell *bell)
{
    atomic_fetch_add_explicit(bell->generation, 1, memory_order_relaxed);
}

void doorbell_empty(const struct doorbell *bell)
{
    uint64_t count;
    int saved = errno;
    struct iovec place = {.iov_base = &count, .iov_len = sizeof count};
    /* O_NONBLOCK belongs to the descriptor that the plugin's side shares: what it does to it must not stop the host here. */
    ssize_t taken = preadv2(bell->event_fd, &place, 1, -1, RWF_NOWAIT);
    (void)taken; /* EAGAIN: nobody rang. */
    errno = saved;
}

bool doorbell_announced(const struct doorbell *bell)
{
    return (atomic_load_explicit(bell->generation, memory_order_relaxed) & 1) != 0;
}
