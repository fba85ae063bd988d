/* Whether a sleeping host is always woken: wait.c, channel.c, and what leads there from sink.c, side_ring.c and ring.c.
 *
 * One publisher of the block ring, one of the side ring, one thread of the host itself that notifies. Each of them says something
 * up to twice. The host ends when it has taken everything; a lost wake-up leaves it asleep, which spin reports as an invalid end
 * state. Its sleep may also end early, once. */
#ifndef BLOCKS
#define BLOCKS 1
#define MESSAGES 1
#define CALLS_RETURNED 1
#endif
#define PROCESSES 4
#define HOST 0
#define BLOCK_PUBLISHER 1
#define SIDE_PUBLISHER 2
#define NOTIFIER 3

#define WORDS 6
#define GENERATION 0
#define WOKEN 1
#define BLOCK_HEAD 2
#define SIDE_HEAD 3
#define NOTICE 4
#define CALLS 5 /* What the notice is about: calls into the plugin that have returned. */
#define DEPTH 2
#define OVERTAKING OVERTAKE(GENERATION)

#include "memory.pml"

byte events; /* The eventfd's counter. */

/*@ wait.c doorbell_ring */
inline doorbell_ring()
{
    /*= uint64_t generation = atomic_load_explicit(bell->generation, memory_order_relaxed); */
    generation = memory[GENERATION];
    if
    :: (generation & 1) == 0
    :: else ->
        /*= if (atomic_exchange_explicit(bell->woken, generation, memory_order_relaxed) == generation) */
        d_step { before = memory[WOKEN]; memory[WOKEN] = generation };
        if
        :: before == generation
        :: else ->
            /*= atomic_fetch_add_explicit(bell->wakeups, 1, memory_order_relaxed); */
            /* A counter that nothing depends on. */
            /*= ssize_t written = write(bell->event_fd, &one, sizeof one); */
            events = 1
        fi
    fi;
    generation = 0;
    before = 0
}

/*@ wait.c doorbell_ring_fenced */
inline doorbell_ring_fenced(process)
{
    /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_BEFORE_THE_BELL
    fence(process);
#endif
    /*= doorbell_ring(bell); */
    doorbell_ring()
}

/*@ wait.c doorbell_announce */
inline doorbell_announce()
{
    /*= atomic_fetch_add_explicit(bell->generation, 1, memory_order_relaxed); */
#ifdef GENERATION_TOGGLES
    announced = 1;
#else
    announced = announced + 1;
#endif
    relaxed_store(HOST, GENERATION, announced);
    /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_ANNOUNCE
    fence(HOST)
#endif
}

/*@ wait.c doorbell_retract */
inline doorbell_retract()
{
    /*= atomic_fetch_add_explicit(bell->generation, 1, memory_order_relaxed); */
#ifdef GENERATION_TOGGLES
    announced = 0;
#else
    announced = announced + 1;
#endif
    relaxed_store(HOST, GENERATION, announced)
}

/*@ wait.c doorbell_empty */
inline doorbell_empty()
{
    /*= ssize_t taken = preadv2(bell->event_fd, &place, 1, -1, RWF_NOWAIT); */
    events = 0
}

/*@ ring.c ring_publish */
inline ring_publish(process, word, position)
{
    /*= atomic_store_explicit(&ring->producer->head, ring->head, memory_order_release); */
    release_store(process, word, position)
}

proctype block_publisher()
{
    byte head, generation, before;
    do
    :: head < BLOCKS ->
        head++;
#ifdef BELL_BEFORE_THE_HEAD
        fence(BLOCK_PUBLISHER);
        doorbell_ring();
        ring_publish(BLOCK_PUBLISHER, BLOCK_HEAD, head)
#else
        ring_publish(BLOCK_PUBLISHER, BLOCK_HEAD, head);
        /*@ sink.c leave */
        /*= owner_lock_give(&slot->lock); */
        /* Modelled in lock.pml. */
        /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_LEAVE
        fence(BLOCK_PUBLISHER);
#endif
        /*= owner_lock_notify(&slot->lock); */
        /*= doorbell_ring(&slot->bell); */
        doorbell_ring()
#endif
    :: else -> break
    od
}

proctype side_publisher()
{
    byte head, generation, before;
    do
    :: head < MESSAGES ->
        head++;
        ring_publish(SIDE_PUBLISHER, SIDE_HEAD, head);
        doorbell_ring_fenced(SIDE_PUBLISHER)
    :: else -> break
    od
}

proctype notifier()
{
    byte calls, generation, before;
    do
    :: calls < CALLS_RETURNED ->
        calls++;
        release_store(NOTIFIER, CALLS, calls);
        /*@ channel.c channel_notify */
        /*= atomic_store_explicit(&channel_words(channel)->notice, 1, memory_order_release); */
        release_store(NOTIFIER, NOTICE, 1);
        /*= doorbell_ring_fenced(&channel->reader->bell); */
        doorbell_ring_fenced(NOTIFIER)
    :: else -> break
    od
}

proctype host()
{
    byte blocks, messages, calls, announced, head, early;
    bool work;
    do
    :: true ->
        /* Takes what is there: NativePlugin.read, read_messages, and the state of its calls. */
        assert(memory[BLOCK_HEAD] >= blocks);
        blocks = memory[BLOCK_HEAD];
        messages = memory[SIDE_HEAD];
        calls = memory[CALLS];
        if
        :: blocks == BLOCKS && messages == MESSAGES && calls == CALLS_RETURNED -> break
        :: else
        fi;
        /*@ reader.c reader_prepare_wait */
        /*= doorbell_announce(&reader->bell); */
#ifndef ANNOUNCE_AFTER_THE_LOOK
        doorbell_announce();
#endif
        /* reader_look */
        /*@ ring.c ring_look */
        /*= uint64_t claimed = atomic_load_explicit(&ring->producer->head, memory_order_acquire); */
        head = memory[BLOCK_HEAD];
        work = head != blocks;
        head = 0;
        if
        :: !work ->
            /*@ channel.c channel_prepare_wait */
            /*= bool side_work = !ring_look(&channel->side.ring, &side_head) || side_head != channel->side.ring.read_position; */
            head = memory[SIDE_HEAD];
#ifndef SIDE_RING_NOT_LOOKED_AT
            work = head != messages;
#endif
            head = 0;
            /*= if (atomic_exchange_explicit(&channel_words(channel)->notice, 0, memory_order_acquire) == 0 && !side_work) */
#ifndef NOTICE_NOT_LOOKED_AT
            d_step { work = work || memory[NOTICE] != 0; memory[NOTICE] = 0 }
#endif
        :: else
        fi;
#ifdef ANNOUNCE_AFTER_THE_LOOK
        doorbell_announce();
#endif
        if
        :: work ->
            /*@ channel.c channel_prepare_wait */
            /*= doorbell_retract(&channel->reader->bell); */
            /*@ reader.c reader_prepare_wait */
            /*= doorbell_retract(&reader->bell); */
            doorbell_retract();
            work = false
        :: else ->
            /* Sleeps on the eventfd. */
            if
            :: events != 0
            :: early == 0 -> early = 1
            fi;
            /*@ channel.c channel_finish_wait */
            /*= if (doorbell_announced(&channel->reader->bell)) */
            /*= doorbell_retract(&channel->reader->bell); */
            doorbell_retract();
            /*= doorbell_empty(&channel->reader->bell); */
            doorbell_empty()
        fi
    od
}

init
{
    atomic {
        run drain(HOST);
        run drain(BLOCK_PUBLISHER);
        run drain(SIDE_PUBLISHER);
        run drain(NOTIFIER);
        run block_publisher();
        run side_publisher();
        run notifier();
        run host()
    }
}
