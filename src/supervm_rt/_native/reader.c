#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reader *reader_create(uint64_t capacity, uint64_t generation, int event_fd, struct releaser *releaser)
{
    struct reader *reader = aligned_alloc(_Alignof(struct reader), sizeof *reader);
    if (!reader)
        return NULL;
    memset(reader, 0, sizeof *reader);
    int error = ring_create(&reader->ring, capacity);
    if (error) {
        free(reader);
        errno = error;
        return NULL;
    }
    reader->places = calloc(capacity / RING_ALIGNMENT, sizeof *reader->places);
    if (!reader->places) {
        ring_destroy(&reader->ring);
        free(reader);
        errno = ENOMEM;
        return NULL;
    }
    if (!releaser && !(reader->landing.bytes = aligned_alloc(RING_ALIGNMENT, capacity))) {
        ring_destroy(&reader->ring);
        free(reader->places);
        free(reader);
        errno = ENOMEM;
        return NULL;
    }
    reader->place_mask = capacity / RING_ALIGNMENT - 1;
    reader->bell = ring_bell(&reader->ring, event_fd);
    reader->releaser = releaser;
    if (releaser)
        ring_close_fds(&reader->ring);
    reader->generation = generation;
    reader->references = 1;
    return reader;
}

void reader_unref(struct reader *reader)
{
    if (--reader->references != 0)
        return;
    ring_destroy(&reader->ring);
    free(reader->landing.bytes);
    free(reader->places);
    free(reader);
}

static void let_go(struct frame_core *frame)
{
    if (frame->in_place || frame->external)
        return;
    struct reader *reader = frame->reader;
    frame->reader = NULL;
    reader_unref(reader);
}

/* Up to where the ring's bytes are needed no longer. */
static uint64_t ring_freed(const struct reader *reader)
{
    return reader->landing.bytes ? reader->ring.read_position : reader->freed;
}

static void publish_freed(struct reader *reader)
{
    uint64_t freed = ring_freed(reader);
    if (freed != reader->ring.tail)
        ring_free(&reader->ring, freed);
}

/* The frame of this place needs it no longer. */
static void leave_place(struct reader *reader, struct frame_core *frame)
{
    frame->in_place = 0;
    reader->pinned_frames--;
    reader->places[frame->sequence & reader->place_mask].frame = NULL;
    if (frame->sequence != reader->first)
        return;
    uint64_t first = reader->first;
    uint64_t next = reader->next;
    do {
        reader->freed = reader->places[first & reader->place_mask].end;
        first++;
    } while (first != next && !reader->places[first & reader->place_mask].frame);
    reader->first = first;
    if (first == next)
        reader->first = reader->next = 0; /* Starting over keeps the places in the cache. */
    if (reader->landing.bytes)
        return;
    if (first == next) {
        publish_freed(reader);
    } else if (reader->freed - reader->ring.tail >= reader->ring.capacity / 8) {
        publish_freed(reader); /* Each one costs a fence; the rest waits for the next look. */
    }
}

static bool copy_out(struct reader *reader, struct frame_core *frame)
{
    uint64_t length = sizeof frame->header + record_stored_length(&frame->header) + record_tails_length(&frame->header);
    uint8_t *copy = malloc(length);
    if (!copy)
        return false;
    memcpy(copy, frame->record, length);
    frame->record = copy;
    reader->copied_out++;
    leave_place(reader, frame);
    return true;
}

/* Copies kept frames out, oldest first, until wanted bytes are free from this position on or an exported one is met. */
static void make_room(struct reader *reader, uint64_t position, uint64_t wanted)
{
    while (reader->first != reader->next && position - reader->freed + wanted > reader->ring.capacity) {
        struct frame_core *oldest = reader->places[reader->first & reader->place_mask].frame;
        if (oldest->exports != 0 && !oldest->external)
            break;
        if (!copy_out(reader, oldest))
            break;
        let_go(oldest);
    }
}

/* Kept frames may hold half of the ring; or less, where the producer lacks room and the host has little left to read. */
static void balance(struct reader *reader)
{
    uint64_t capacity = reader->ring.capacity;
    uint64_t unread = reader->head - reader->ring.read_position;
    if (reader->landing.bytes) {
        if (unread != 0 && reader->ring.read_position - reader->ring.tail < capacity / 8)
            return; /* A producer that waits is woken for no less, as long as there is something left to read. */
    } else if (reader->first != reader->next) {
        uint64_t wanted = atomic_load_explicit(&reader->ring.producer->wanted, memory_order_relaxed);
        if (wanted > capacity)
            wanted = capacity;
        if (wanted != 0 && unread <= capacity / 4)
            make_room(reader, reader->head, wanted);
        if (reader->ring.read_position - reader->freed > capacity / 2)
            make_room(reader, reader->head, unread < capacity / 2 ? capacity / 2 - unread : 0);
    }
    publish_freed(reader);
}

int reader_look(struct reader *reader)
{
    if (reader->corrupt)
        return -1;
    if (!ring_look(&reader->ring, &reader->head)) {
        reader->corrupt = true;
        return -1;
    }
    balance(reader);
    reader->landing.open = true;
    return reader->head != reader->ring.read_position;
}

uint64_t reader_used(const struct reader *reader)
{
    uint64_t head;
    if (!ring_look(&reader->ring, &head))
        head = reader->head;
    uint64_t used = head - ring_freed(reader);
    return used <= reader->ring.capacity ? used : 0; /* The head is a claim, and may have gone back. */
}

/* Place that comes free while the host sleeps: nobody else would tell a producer that waits for it. */
static void balance_asleep(struct reader *reader)
{
    if (doorbell_announced(&reader->bell) && !reader->detached)
        balance(reader);
}

static int refuse(struct reader *reader, struct frame_core *frame)
{
    reader->corrupt = true;
    memset(frame, 0, sizeof *frame);
    return -1;
}

/* The frame of the record that was read, of which frame has the header, and whose place ends at this position. */
static int hand_out(struct reader *reader, struct frame_core *frame, const uint8_t *record, uint64_t end)
{
    frame->reader = reader;
    frame->record = record;
    frame->generation = reader->generation;
    frame->sequence = reader->next;
    frame->in_place = 1;
    reader->references++;
    reader->places[reader->next & reader->place_mask] = (struct reader_place){.end = end, .frame = frame};
    reader->next++;
    reader->pinned_frames++;
    reader->frames++;
    reader->bytes += frame->header.payload_length;
    return 1;
}

/* Copies the next records out of the ring, the first of which has this length, to where nothing is kept. false: exported frames
 * leave no such place. */
static bool land(struct reader *reader, uint64_t length)
{
    struct landing *landing = &reader->landing;
    uint64_t capacity = reader->ring.capacity, position = reader->ring.read_position;
    uint64_t stretch = capacity / 4 < LANDING_STRETCH ? capacity / 4 : LANDING_STRETCH;
    /* Records are often alike in size, and one that is cut has to be copied again. */
    uint64_t wanted = length < stretch ? stretch - stretch % length : length;
    if (wanted > reader->head - position)
        wanted = reader->head - position;
    uint64_t at = landing->next, to_end = capacity - (at & (capacity - 1));
    if (to_end < wanted)
        at += to_end;
    make_room(reader, at, wanted);
    if (reader->first == reader->next)
        at = reader->freed = 0;
    if (at - reader->freed + wanted > capacity)
        wanted = length;
    if (at - reader->freed + wanted > capacity)
        return false;
    memcpy(landing->bytes + (at & (capacity - 1)), ring_at(&reader->ring, position), wanted);
    ring_snapshot();
    landing->next = at;
    landing->until = position + wanted;
    return true;
}

/* As land and hand_out, but into a block of its own. */
static int read_alone(struct reader *reader, struct frame_core *frame)
{
    uint64_t length = frame->header.total_length;
    uint8_t *copy = malloc(length);
    if (!copy) {
        memset(frame, 0, sizeof *frame);
        return -2;
    }
    memcpy(copy, ring_at(&reader->ring, reader->ring.read_position), length);
    memcpy(copy, &frame->header, sizeof frame->header); /* The one that was judged. */
    frame->record = copy;
    frame->generation = reader->generation;
    reader->ring.read_position += length;
    reader->landing.until = reader->ring.read_position;
    reader->landing.open = false;
    reader->copied_out++;
    reader->frames++;
    reader->bytes += frame->header.payload_length;
    return 1;
}

/* As reader_next, of a ring that another process can write to. */
static int next_landed(struct reader *reader, struct frame_core *frame)
{
    struct landing *landing = &reader->landing;
    uint64_t position = reader->ring.read_position, capacity = reader->ring.capacity;
    const uint8_t *record = landing->bytes + (landing->next & (capacity - 1));
    uint64_t landed = landing->until - position;
    if (landed != 0)
        memcpy(&frame->header, record, sizeof frame->header);
    if (landed == 0 || (frame->header.total_length > landed && landed < reader->head - position)) {
        landing->until = position; /* A record that was cut off comes anew. */
        if (!landing->open) {
            memset(&frame->header, 0, sizeof frame->header);
            return 0;
        }
        memcpy(&frame->header, ring_at(&reader->ring, position), sizeof frame->header);
        ring_snapshot();
        if (!record_is_sound(&frame->header, reader->head - position) || frame->header.flags & RECORD_EXTERNAL)
            return refuse(reader, frame);
        if (!land(reader, frame->header.total_length))
            return read_alone(reader, frame);
        landed = landing->until - position;
        record = landing->bytes + (landing->next & (capacity - 1));
        memcpy(&frame->header, record, sizeof frame->header); /* This copy is the one that counts. */
    }
    if (!record_is_sound(&frame->header, landed) || frame->header.flags & RECORD_EXTERNAL)
        return refuse(reader, frame);
    reader->ring.read_position += frame->header.total_length;
    landing->next += frame->header.total_length;
    landing->open = false;
    return hand_out(reader, frame, record, landing->next);
}

int reader_next(struct reader *reader, struct frame_core *frame)
{
    uint64_t position = reader->ring.read_position;
    if (position == reader->head)
        return 0;
    if (reader->landing.bytes)
        return next_landed(reader, frame);
    const uint8_t *record = ring_at(&reader->ring, position);
    memcpy(&frame->header, record, sizeof frame->header);
    ring_snapshot();
    if (!record_is_sound(&frame->header, reader->head - position))
        return refuse(reader, frame);
    if (frame->header.flags & RECORD_EXTERNAL) {
        struct external *external;
        memcpy(&external, record + sizeof frame->header, sizeof external);
        frame->external = external;
        external->frame = frame;
        external->previous = NULL;
        external->next = reader->externals;
        if (reader->externals)
            reader->externals->previous = external;
        reader->externals = external;
    }
    position += frame->header.total_length;
    /* Records are often alike in size. A wrong guess costs nothing. */
    __builtin_prefetch(ring_at(&reader->ring, position + 16 * frame->header.total_length));
    reader->ring.read_position = position;
    return hand_out(reader, frame, record, position);
}

bool reader_prepare_wait(struct reader *reader)
{
    doorbell_announce(&reader->bell);
    if (reader_look(reader) == 0)
        return true;
    doorbell_retract(&reader->bell);
    return false;
}

static void return_external(struct reader *reader, struct frame_core *frame)
{
    struct external *external = frame->external;
    frame->external = NULL;
    if (external->previous)
        external->previous->next = external->next;
    else
        reader->externals = external->next;
    if (external->next)
        external->next->previous = external->previous;
    if (ring_is_mine(&reader->ring)) /* A forked child has no releaser, and the payload is the parent's to give back. */
        releaser_push(reader->releaser, external);
}

void frame_drop(struct frame_core *frame)
{
    struct reader *reader = frame->reader;
    if (frame->in_place) {
        leave_place(reader, frame);
        balance_asleep(reader);
    } else {
        free((void *)frame->record);
    }
    frame->record = NULL;
    if (!reader)
        return;
    if (frame->external)
        return_external(reader, frame);
    let_go(frame);
}

bool frame_pin(struct frame_core *frame)
{
    struct reader *reader = frame->reader;
    if (frame->in_place && !frame->external && frame->exports == 0) {
        if (reader->exported_bytes + frame->header.total_length > reader->ring.capacity / 2) {
            if (!copy_out(reader, frame))
                return false;
            let_go(frame);
        } else {
            reader->exported_bytes += frame->header.total_length;
        }
    }
    frame->exports++;
    return true;
}

void frame_unpin(struct frame_core *frame)
{
    frame->exports--;
    if (frame->exports != 0 || !frame->in_place || frame->external)
        return;
    struct reader *reader = frame->reader;
    reader->exported_bytes -= frame->header.total_length;
    balance_asleep(reader);
}

static bool detach_external(struct reader *reader, struct frame_core *frame)
{
    if (frame->exports != 0)
        return false;
    uint64_t tails = record_tails_length(&frame->header);
    uint64_t length = sizeof frame->header + frame->header.payload_length + tails;
    uint8_t *copy = malloc(length);
    if (!copy)
        return false;
    memcpy(copy, &frame->header, sizeof frame->header);
    memcpy(copy + sizeof frame->header, frame->external->payload, frame->header.payload_length);
    memcpy(copy + sizeof frame->header + frame->header.payload_length, frame_tails(frame), tails);
    return_external(reader, frame);
    if (frame->in_place)
        leave_place(reader, frame);
    else
        free((void *)frame->record);
    frame->record = copy;
    frame->header.flags &= (uint16_t)~RECORD_EXTERNAL;
    reader->copied_out++;
    let_go(frame);
    return true;
}

uint64_t reader_detach(struct reader *reader)
{
    uint64_t kept = 0;
    for (struct external *external = reader->externals; external;) {
        struct external *next = external->next; /* The external itself is gone once detached. */
        if (!detach_external(reader, external->frame))
            kept++;
        external = next;
    }
    for (uint64_t sequence = reader->first; reader->first != reader->next && sequence != reader->next; sequence++) {
        struct frame_core *frame = reader->places[sequence & reader->place_mask].frame;
        if (frame && frame->exports == 0 && copy_out(reader, frame))
            let_go(frame);
    }
    if (reader->landing.bytes && reader_look(reader) == 1)
        reader->ring.read_position = reader->landing.until = reader->head;
    struct frame_core unread; /* Its payload may be external. */
    memset(&unread, 0, sizeof unread);
    while (reader_look(reader) == 1 && reader_next(reader, &unread) == 1) {
        frame_drop(&unread);
        memset(&unread, 0, sizeof unread);
    }
    if (kept == 0)
        reader->detached = true;
    return kept;
}
