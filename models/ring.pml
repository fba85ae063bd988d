/* Whether a record reaches the host once, in order and unharmed, and whether both sides are always woken: ring.c, reader.c and what
 * of sink.c and wait.c lies between.
 *
 * A producer publishes RECORDS records of SHORT or LONG units through a ring of CAPACITY units. The host reads them, keeps frames,
 * exports their buffers, drops them in any order, sleeps, and may stop the ring at any moment. It copies frames out as
 * reader.c does. While it sleeps somebody else may give back an exported buffer, and drop a frame, DROPS times.
 *
 * Each unit of the data holds its record's number and length; what a frame shows is compared when it is read and again when it is
 * dropped or copied out. Whoever sleeps for ever leaves an invalid end state. */
#ifndef RECORDS
#define RECORDS 3
#define SHORT 1
#define LONG 3
#define DROPS 1 /* How often a frame is dropped while the host sleeps. */
#endif
#define CAPACITY 4
#define BATCH 2 /* capacity / 8 in C: how much is freed before it is said, a larger share here so that it happens. */
#define PROCESSES 2
#define HOST 0
#define PRODUCER 1

#define WORDS 12
#define HEAD 0
#define TAIL 1
#define WAITING 2
#define WANTED 3
#define SEQUENCE 4
#define STOP 5
#define GENERATION 6
#define WOKEN 7
#define DATA 8
#define DEPTH 6
#define OVERTAKING                                                                                                              \
    OVERTAKE(HEAD) OVERTAKE(WAITING) OVERTAKE(WANTED) OVERTAKE(GENERATION) OVERTAKE(8) OVERTAKE(9) OVERTAKE(10) OVERTAKE(11)

#include "memory.pml"

#define unit(position) (DATA + (position) % CAPACITY)
#define content(number, length) ((number) * 4 + (length))

byte events;    /* The eventfd's counter. */
bool sleeping;  /* The producer, on the futex. */

/* ---- the producer ---- */

/*@ wait.c doorbell_ring */
inline doorbell_ring()
{
    /*= uint64_t generation = atomic_load_explicit(bell->generation, memory_order_relaxed); */
    generation = memory[GENERATION];
    /*= if (atomic_exchange_explicit(bell->woken, generation, memory_order_relaxed) == generation) */
    /*= atomic_fetch_add_explicit(bell->wakeups, 1, memory_order_relaxed); */
    /*= ssize_t written = write(bell->event_fd, &one, sizeof one); */
    d_step {
        if
        :: (generation & 1) != 0 && memory[WOKEN] != generation -> memory[WOKEN] = generation; events = 1
        :: else
        fi;
        generation = 0
    }
}

#define has_room (CAPACITY - (head - known_tail) >= length)

/*@ ring.c has_room */
inline look_for_room()
{
    /*= ring->known_tail = atomic_load_explicit(&ring->host->tail, memory_order_acquire); */
    if
    :: has_room
    :: else -> known_tail = memory[TAIL]
    fi
}

/*@ ring.c wait_for_room */
inline wait_for_room()
{
    /*= atomic_fetch_add_explicit(&mine->waits, 1, memory_order_relaxed); */
    /* A counter that nothing depends on. */
    do
    :: true ->
        /*= uint32_t sequence = atomic_load_explicit(&ring->host->space_sequence, memory_order_acquire); */
#ifndef SEQUENCE_AFTER_THE_LOOK
        sequence = memory[SEQUENCE];
#endif
        /*= atomic_store_explicit(&mine->waiting, 1, memory_order_relaxed); */
        relaxed_store(PRODUCER, WAITING, 1);
        /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_WAIT
        fence(PRODUCER);
#endif
        /*= if (ring_stopped(ring)) { */
        if
#ifndef STOP_NOT_LOOKED_AT
        :: memory[STOP] -> stopping = true; break
#endif
        :: else
        fi;
        /*= if (has_room(ring, length)) */
        look_for_room();
        if
        :: has_room -> break
        :: else
        fi;
        /*= doorbell_ring(bell); */
#ifndef NO_BELL_WHEN_FULL
        doorbell_ring();
#endif
#ifdef SEQUENCE_AFTER_THE_LOOK
        sequence = memory[SEQUENCE];
#endif
        /*= futex_wait(&ring->host->space_sequence, sequence, -1); */
        /* The kernel compares and begins to sleep in one step. It may also return early; that is left out, it could only help. */
        fence(PRODUCER);
        d_step { sleeping = memory[SEQUENCE] == sequence; sequence = 0 };
        !sleeping
    od;
    sequence = 0;
    /*= atomic_store_explicit(&mine->waiting, 0, memory_order_relaxed); */
    relaxed_store(PRODUCER, WAITING, 0)
}

/*@ ring.c ring_claim */
inline ring_claim()
{
    /*= if (!has_room(ring, length)) { */
    look_for_room();
    if
    :: has_room
    :: else ->
        /*= atomic_store_explicit(&ring->producer->wanted, length, memory_order_relaxed); */
#ifndef WANTED_NOT_SAID
        relaxed_store(PRODUCER, WANTED, length);
#endif
        asked = true;
        /*= status = wait_for_room(ring, length, bell); */
        /*= doorbell_ring_fenced(bell); */
        /* Without waiting, the caller tries again. */
        if
        :: wait -> wait_for_room()
        :: else -> fence(PRODUCER); doorbell_ring(); wait = true; goto again
        fi
    fi;
    /*= atomic_store_explicit(&ring->producer->wanted, 0, memory_order_relaxed); */
    if
    :: asked && !stopping -> asked = false; relaxed_store(PRODUCER, WANTED, 0)
    :: else
    fi
}

/*@ ring.c ring_publish */
inline ring_publish()
{
    head = head + length;
    /*= atomic_store_explicit(&ring->producer->head, ring->head, memory_order_release); */
#ifdef HEAD_STORED_RELAXED
    relaxed_store(PRODUCER, HEAD, head)
#else
    release_store(PRODUCER, HEAD, head)
#endif
}

inline write_record()
{
    relaxed_store(PRODUCER, unit(written), content(number, length));
    if
    :: length > 1 -> relaxed_store(PRODUCER, unit(written + 1), content(number, length))
    :: else
    fi;
    if
    :: length > 2 -> relaxed_store(PRODUCER, unit(written + 2), content(number, length))
    :: else
    fi
}

proctype producer()
{
    byte head, known_tail, written, number, length, sequence, generation;
    bool asked, wait, stopping;
    do
    :: number < RECORDS ->
        number++;
        if
        :: length = SHORT
#if LONG != SHORT
        :: length = LONG
#endif
        fi;
        wait = false;
again:
        if
        :: memory[STOP] -> break /* sink.c enter */
        :: else
        fi;
        if
        :: wait = true
        :: !wait
        fi;
        ring_claim();
        if
        :: stopping -> break
        :: else
        fi;
        written = head;
#ifdef HEAD_BEFORE_THE_DATA
        ring_publish();
        write_record();
#else
        write_record();
        ring_publish();
#endif
        /*@ sink.c leave */
        /*= owner_lock_give(&slot->lock); */
        /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_LEAVE
        fence(PRODUCER);
#endif
        /*= owner_lock_notify(&slot->lock); */
        /*= doorbell_ring(&slot->bell); */
        doorbell_ring()
    :: else -> break
    od
}

/* ---- the host ---- */

/*@ ring.c ring_free */
inline ring_free()
{
    tail = freed;
    /*= atomic_store_explicit(&ring->host->tail, position, memory_order_release); */
    release_store(HOST, TAIL, tail);
    /*= atomic_thread_fence(memory_order_seq_cst); */
#ifndef NO_FENCE_IN_FREE
    fence(HOST);
#endif
    /*= if (atomic_load_explicit(&ring->producer->waiting, memory_order_relaxed)) { */
    if
    :: memory[WAITING] ->
        /*= atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_release); */
#ifndef SEQUENCE_NOT_BUMPED
        space = space + 1;
        release_store(HOST, SEQUENCE, space);
#endif
        /*= futex_wake_all(&ring->host->space_sequence); */
        fence(HOST);
        sleeping = false
    :: else
    fi
}

/*@ ring.c ring_stop */
inline ring_stop()
{
    /*= atomic_store_explicit(&ring->host->stop, 1, memory_order_seq_cst); */
    release_store(HOST, STOP, 1);
    fence(HOST);
    /*= atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_seq_cst); */
#ifndef STOP_WITHOUT_A_NEW_SEQUENCE
    space = space + 1;
    release_store(HOST, SEQUENCE, space);
    fence(HOST);
#endif
    /*= futex_wake_all(&ring->host->space_sequence); */
    sleeping = false
}

/*@ reader.c publish_freed */
inline publish_freed()
{
    /*= ring_free(&reader->ring, freed); */
    if
    :: freed != tail -> ring_free()
    :: else
    fi
}

/* What the frame in this place shows is still what was published. */
inline check(place)
{
    assert(memory[unit(ends[place] - lengths[place])] == content(numbers[place], lengths[place]));
    assert(memory[unit(ends[place] - 1)] == content(numbers[place], lengths[place]))
}

/*@ reader.c leave_place */
inline leave_place(place)
{
    d_step {
        check(place);
        used[place] = false;
        exported[place] = false;
        advanced = place == first;
        if
        :: advanced ->
            do
            :: freed = ends[first]; numbers[first] = 0; lengths[first] = 0; ends[first] = 0; first = (first + 1) % CAPACITY; kept--;
               if
               :: kept == 0 || used[first] -> break
               :: else
               fi
            od
        :: else
        fi
    };
    /*= publish_freed(reader); */
    /*= publish_freed(reader); */
    if
    :: advanced && (kept == 0 || freed - tail >= BATCH) -> publish_freed()
    :: else
    fi;
    advanced = false
}

/*@ reader.c make_room */
inline make_room(room)
{
    /*= if (!copy_out(reader, oldest)) */
    do
    :: kept != 0 && CAPACITY - (head - freed) < room && !exported[first] -> leave_place(first)
    :: else -> break
    od
}

/*@ reader.c balance */
inline balance()
{
    if
    :: kept != 0 ->
        /*= uint64_t wanted = atomic_load_explicit(&reader->ring.producer->wanted, memory_order_relaxed); */
        wanted = memory[WANTED];
        /*= make_room(reader, reader->head, wanted); */
        if
        :: wanted != 0 && head - read_position <= CAPACITY / 4 -> make_room(wanted)
        :: else
        fi;
        wanted = 0;
        /*= make_room(reader, reader->head, unread < capacity / 2 ? capacity / 2 - unread : 0); */
        if
        :: read_position - freed > CAPACITY / 2 && head - read_position < CAPACITY / 2 ->
            make_room(CAPACITY / 2 - (head - read_position))
        :: else
        fi
    :: else
    fi;
    /*= publish_freed(reader); */
    publish_freed()
}

/*@ reader.c reader_look */
inline reader_look()
{
    /*@ ring.c ring_look */
    /*= uint64_t claimed = atomic_load_explicit(&ring->producer->head, memory_order_acquire); */
    head = memory[HEAD];
    assert(head - tail <= CAPACITY && head >= read_position);
    /*@ reader.c reader_look */
    /*= if (!ring_look(&reader->ring, &reader->head)) { */
    /*= balance(reader); */
    balance()
}

/*@ reader.c balance_asleep */
inline balance_asleep()
{
    /*= if (doorbell_announced(&reader->bell) && !reader->detached) */
    /*= balance(reader); */
#ifdef NO_BALANCE_ASLEEP
    skip
#else
    balance()
#endif
}

/*@ reader.c reader_next */
inline reader_next()
{
    d_step {
        place = (first + kept) % CAPACITY;
        numbers[place] = memory[unit(read_position)] / 4;
        lengths[place] = memory[unit(read_position)] % 4;
        taken++;
        assert(numbers[place] == taken);
        read_position = read_position + lengths[place];
        assert(read_position <= head);
        ends[place] = read_position;
        used[place] = true;
        check(place);
        kept++;
        place = 0;
#ifdef TAIL_AT_THE_READ
        freed = read_position;
#endif
    };
#ifdef TAIL_AT_THE_READ
    publish_freed()
#endif
}

proctype host()
{
    byte head, tail, freed, read_position, taken, wanted, announced, space, place, exports, drops;
    byte first, kept; /* The places in use: kept of them from first on, some no longer used. */
    byte ends[CAPACITY], numbers[CAPACITY], lengths[CAPACITY];
    bool used[CAPACITY], exported[CAPACITY], advanced;
    do
    :: taken == RECORDS && kept == 0 -> break
    :: true -> ring_stop(); break
    :: head != read_position -> reader_next()
    :: kept != 0 && used[first] && !exported[first] -> leave_place(first)
    :: kept > 1 && used[(first + 1) % CAPACITY] && !exported[(first + 1) % CAPACITY] -> place = (first + 1) % CAPACITY; leave_place(place); place = 0
    :: kept != 0 && used[first] && !exported[first] && exports == 0 -> exported[first] = true; exports++
    :: kept != 0 && exported[first] -> exported[first] = false
    :: head == read_position && taken != RECORDS ->
        /*@ reader.c reader_prepare_wait */
        /*= doorbell_announce(&reader->bell); */
        /*@ wait.c doorbell_announce */
        /*= atomic_fetch_add_explicit(bell->generation, 1, memory_order_relaxed); */
        /*= atomic_thread_fence(memory_order_seq_cst); */
#ifdef ANNOUNCE_AFTER_THE_LOOK
        reader_look();
#endif
        announced = announced + 1;
        relaxed_store(HOST, GENERATION, announced);
#ifndef NO_FENCE_IN_ANNOUNCE
        fence(HOST);
#endif
        /*@ reader.c reader_prepare_wait */
        /*= if (reader_look(reader) == 0) */
#ifndef ANNOUNCE_AFTER_THE_LOOK
        reader_look();
#endif
        /*= doorbell_retract(&reader->bell); */
        do
        :: head != read_position -> break
        :: head == read_position && events != 0 -> break
        :: head == read_position && kept != 0 && exported[first] -> exported[first] = false; balance_asleep() /* frame_unpin */
        :: head == read_position && kept != 0 && used[first] && drops < DROPS -> drops++; leave_place(first); balance_asleep() /* frame_drop */
        od;
        announced = announced + 1;
        relaxed_store(HOST, GENERATION, announced);
        /*@ channel.c channel_finish_wait */
        /*= if (doorbell_announced(&channel->reader->bell)) */
        /*= doorbell_retract(&channel->reader->bell); */
        /*= doorbell_empty(&channel->reader->bell); */
        events = 0
    od
}

init
{
    atomic {
        run drain(HOST);
        run drain(PRODUCER);
        run producer();
        run host()
    }
}
