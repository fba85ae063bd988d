/* Whether the producers' lock lets one in at a time, wakes who waits for it, and lets all go at the stop: lock.c, and its use in
 * sink.c and in_process.c.
 *
 * Each publisher takes the lock TAKES times. The host stops them at any moment, or never. Where it does, one publisher may keep the
 * lock for ever (reserve, and no commit). Whoever sleeps for ever leaves an invalid end state. */
#ifndef PUBLISHERS
#define PUBLISHERS 2
#define TAKES 2
#endif
#define HOST 0
#define PROCESSES (PUBLISHERS + 1)

/* Words 1 to 3: the waiters. A counter that threads only add to is as good as one number for each, added up by who reads it. */
#define WORDS 7
#define OWNER 4
#define SEQUENCE 5
#define STOP 6
#define DEPTH 4
#define OVERTAKING OVERTAKE(1) OVERTAKE(2) OVERTAKE(3)
#define all_waiters (memory[1] + memory[2] + memory[3])

#include "memory.pml"

bool sleeping[PROCESSES]; /* On the futex. */
byte inside;
bool stops;  /* The host will stop them. */
bool kept;   /* Somebody never gives the lock back. */

inline wake_all()
{
    d_step {
        sleeping[1] = false;
        sleeping[2] = false;
#if PUBLISHERS > 2
        sleeping[3] = false
#endif
    }
}

/*@ lock.c try_take */
inline try_take(me)
{
    /*= return atomic_compare_exchange_strong_explicit(&lock->owner, &free_word, self(), memory_order_acquire, memory_order_relaxed); */
    /* A thread's own store comes first, as everywhere. */
    atomic {
        !(buffer[me]??[OWNER, 0, true]);
        if
        :: memory[OWNER] == 0 -> memory[OWNER] = me; mine = true
        :: else
        fi
    }
}

/*@ lock.c owner_lock_interrupt */
inline owner_lock_interrupt(me)
{
    /*= atomic_fetch_add_explicit(&lock->sequence, 1, memory_order_release); */
    fence(me); /* A release: what was stored before is seen before. */
#ifndef SEQUENCE_NOT_BUMPED
    memory[SEQUENCE] = memory[SEQUENCE] + 1;
#endif
    /*= futex_wake_all(&lock->sequence); */
    wake_all()
}

/*@ lock.c owner_lock_take */
inline owner_lock_take(me)
{
    /*= if (try_take(lock)) */
    try_take(me);
    if
    :: mine
    :: else ->
        /*= if (owner_lock_is_mine(lock)) */
        /*= atomic_fetch_add_explicit(&lock->waiters, 1, memory_order_relaxed); */
        relaxed_store(me, me, 1);
        do
        :: true ->
            /*= uint32_t sequence = atomic_load_explicit(&lock->sequence, memory_order_acquire); */
#ifndef SEQUENCE_AFTER_THE_LOOK
            sequence = memory[SEQUENCE];
#endif
            /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_TAKE
            fence(me);
#endif
            /*= if (atomic_load_explicit(stop, memory_order_acquire)) */
            if
            :: memory[STOP] -> stopping = true; break
            :: else
            fi;
            /*= if (try_take(lock)) { */
            try_take(me);
            if
            :: mine -> break
            :: else
            fi;
#ifdef SEQUENCE_AFTER_THE_LOOK
            sequence = memory[SEQUENCE];
#endif
            /*= futex_wait(&lock->sequence, sequence, -1); */
            fence(me);
            d_step { sleeping[me] = memory[SEQUENCE] == sequence; sequence = 0 };
            !sleeping[me]
        od;
        sequence = 0;
        /*= atomic_fetch_sub_explicit(&lock->waiters, 1, memory_order_relaxed); */
        relaxed_store(me, me, 0)
    fi
}

/*@ lock.c owner_lock_give */
inline owner_lock_give(me)
{
    /*= atomic_store_explicit(&lock->owner, 0, memory_order_release); */
    release_store(me, OWNER, 0)
}

proctype publisher(byte me)
{
    byte takes, sequence;
    bool mine, stopping;
    do
    :: takes < TAKES ->
        takes++;
        /*@ sink.c enter */
        /*= if (ring_stopped(slot->ring)) */
        if
        :: memory[STOP] -> break
        :: else
        fi;
        /*= return owner_lock_take(&slot->lock, wait, &slot->ring->host->stop); */
        owner_lock_take(me);
        if
        :: stopping -> break
        :: else
        fi;
        inside++;
        assert(inside == 1);
        if
        :: true
        :: atomic { stops && !kept -> kept = true }; break
        fi;
        inside--;
        mine = false;
        /*@ sink.c leave */
        /*= owner_lock_give(&slot->lock); */
        owner_lock_give(me);
        /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_LEAVE
        fence(me);
#endif
        /*= owner_lock_notify(&slot->lock); */
        /*@ lock.c owner_lock_notify */
        /*= if (atomic_load_explicit(&lock->waiters, memory_order_relaxed)) */
        /*= owner_lock_interrupt(lock); */
        if
        :: all_waiters != 0 -> owner_lock_interrupt(me)
        :: else
        fi
        /*@ sink.c leave */
        /*= doorbell_ring(&slot->bell); */
        /* Modelled in doorbell.pml. */
    :: else -> break
    od
}

proctype host()
{
    /*@ in_process.c slot_begin_stop */
    /*= ring_stop(&slot->channel->reader->ring); */
    release_store(HOST, STOP, 1);
    fence(HOST);
    /*= owner_lock_interrupt(&slot->lock); */
#ifndef STOP_WITHOUT_INTERRUPT
    owner_lock_interrupt(HOST)
#endif
}

init
{
    atomic {
        if
        :: stops = true; run host()
        :: true
        fi;
        run drain(HOST);
        run drain(1);
        run drain(2);
        run publisher(1);
        run publisher(2);
#if PUBLISHERS > 2
        run drain(3);
        run publisher(3);
#endif
    }
}
