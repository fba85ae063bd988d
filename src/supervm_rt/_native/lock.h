/* The producers' lock: it knows its owner, so that a second call of the same thread is answered, not deadlocked.
 *
 * It lives outside shared memory. A thread that waits here is let go when the plugin is stopped.
 */
#ifndef SUPERVM_NATIVE_LOCK_H
#define SUPERVM_NATIVE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct owner_lock {
    _Atomic uint64_t owner;    /* pthread_self of the holder, 0: free. */
    _Atomic uint32_t sequence; /* What waiters sleep on. */
    _Atomic uint32_t waiters;
    _Atomic uint32_t *shown_waiters; /* Where the host can see how many wait; it may be in shared memory and is never read here. */
};

/* SUPERVM_OK, _BUSY (this thread holds it), _WOULD_BLOCK (only without wait), or _STOPPING once *stop is set while it waits. */
int32_t owner_lock_take(struct owner_lock *lock, bool wait, const _Atomic uint32_t *stop);
bool owner_lock_is_mine(const struct owner_lock *lock);

/* Gives the lock back. The caller then passes a seq_cst fence and calls owner_lock_notify: one fence serves all its wake-ups. */
void owner_lock_give(struct owner_lock *lock);
void owner_lock_notify(struct owner_lock *lock);

/* Makes all waiters look at their stop word again. */
void owner_lock_interrupt(struct owner_lock *lock);

#endif
