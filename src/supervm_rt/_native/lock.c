#include "lock.h"

#include <pthread.h>

#include "supervm/status.h"
#include "wait.h"

static uint64_t self(void)
{
    return (uint64_t)(uintptr_t)pthread_self();
}

static bool try_take(struct owner_lock *lock)
{
    uint64_t free_word = 0;
    return atomic_compare_exchange_strong_explicit(&lock->owner, &free_word, self(), memory_order_acquire, memory_order_relaxed);
}

bool owner_lock_is_mine(const struct owner_lock *lock)
{
    return atomic_load_explicit(&lock->owner, memory_order_relaxed) == self();
}

/* change: 1, or UINT32_MAX for one less. */
static void show_waiters(struct owner_lock *lock, uint32_t change)
{
    if (lock->shown_waiters)
        atomic_fetch_add_explicit(lock->shown_waiters, change, memory_order_relaxed);
}

int32_t owner_lock_take(struct owner_lock *lock, bool wait, const _Atomic uint32_t *stop)
{
    if (try_take(lock))
        return SUPERVM_OK;
    if (owner_lock_is_mine(lock))
        return SUPERVM_BUSY;
    if (!wait)
        return SUPERVM_WOULD_BLOCK;

    int32_t status = SUPERVM_STOPPING;
    atomic_fetch_add_explicit(&lock->waiters, 1, memory_order_relaxed);
    show_waiters(lock, 1);
    for (;;) {
        uint32_t sequence = atomic_load_explicit(&lock->sequence, memory_order_acquire);
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_load_explicit(stop, memory_order_acquire))
            break;
        if (try_take(lock)) {
            status = SUPERVM_OK;
            break;
        }
        futex_wait(&lock->sequence, sequence, -1);
    }
    atomic_fetch_sub_explicit(&lock->waiters, 1, memory_order_relaxed);
    show_waiters(lock, UINT32_MAX);
    return status;
}

void owner_lock_give(struct owner_lock *lock)
{
    atomic_store_explicit(&lock->owner, 0, memory_order_release);
}

void owner_lock_notify(struct owner_lock *lock)
{
    if (atomic_load_explicit(&lock->waiters, memory_order_relaxed))
        owner_lock_interrupt(lock);
}

void owner_lock_interrupt(struct owner_lock *lock)
{
    atomic_fetch_add_explicit(&lock->sequence, 1, memory_order_release);
    futex_wake_all(&lock->sequence);
}
