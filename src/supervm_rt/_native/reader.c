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
    reader->place_mask = capacity / RING_ALIGNMENT - 1;
    reader->bell = ring_bell(&reader->ring, event_fd);
    reader->releaser = releaser;
    reader->shared = !releaser;
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
    free(reader->places);
    free(reader);
}

static void let_go(struct frame_core *frame)
{
    if (frame->in_ring || frame->external)
        return;
    struct reader *reader = frame->reader;
    frame->reader = NULL;
    reader_unref(reader);
}

static void publish_freed(struct reader *reader)
{
    if (reader->freed != reader->ring.tail)
        ring_free(&reader->ring, reader->freed);
}

/* The frame of this place needs it no longer. */
static void leave_place(struct reader *reader, struct frame_core *frame)
{
    frame->in_ring = 0;
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
    if (first == next) {
        reader->first = reader->next = 0; /* Starting over keeps the places in the cache. */
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

/* Copies kept frames out, oldest first, until wanted bytes are free or an exported one is met. */
static void make_room(struct reader *reader, uint64_t wanted)
{
    while (reader->first != reader->next && reader->ring.capacity - (reader->head - reader->freed) < wanted) {
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
    if (reader->first != reader->next) {
        uint64_t wanted = atomic_load_explicit(&reader->ring.producer->wanted, memory_order_relaxed);
        if (wanted > capacity)
            wanted = capacity;
        if (wanted != 0 && unread <= capacity / 4)
            make_room(reader, wanted);
        if (reader->ring.read_position - reader->freed > capacity / 2)
            make_room(reader, unread < capacity / 2 ? capacity / 2 - unread : 0);
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
    return reader->head != reader->ring.read_position;
}

uint64_t reader_used(const struct reader *reader)
{
    uint64_t head;
    return (ring_look(&reader->ring, &head) ? head : reader->head) - reader->freed;
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

int reader_next(struct reader *reader, struct frame_core *frame)
{
    uint64_t position = reader->ring.read_position;
    if (position == reader->head)
        return 0;
    const uint8_t *record = ring_at(&reader->ring, position);
    memcpy(&frame->header, record, sizeof frame->header);
    ring_snapshot();
    if (!record_is_sound(&frame->header, reader->head - position))
        return refuse(reader, frame);
    if (frame->header.flags & RECORD_EXTERNAL) {
        if (!reader->releaser)
            return refuse(reader, frame);
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
    frame->reader = reader;
    frame->record = record;
    frame->generation = reader->generation;
    frame->sequence = reader->next;
    frame->in_ring = 1;
    reader->references++;
    reader->places[reader->next & reader->place_mask] = (struct reader_place){.end = position, .frame = frame};
    reader->next++;
    reader->pinned_frames++;
    reader->frames++;
    reader->bytes += frame->header.payload_length;
    return 1;
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
    if (frame->in_ring) {
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

bool frame_settle(struct frame_core *frame)
{
    struct reader *reader = frame->reader;
    if (!frame->in_ring || !reader->shared)
        return true;
    if (!copy_out(reader, frame))
        return false;
    let_go(frame);
    return true;
}

bool frame_pin(struct frame_core *frame)
{
    if (!frame_settle(frame))
        return false;
    struct reader *reader = frame->reader;
    if (frame->in_ring && !frame->external && frame->exports == 0) {
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
    if (frame->exports != 0 || !frame->in_ring || frame->external)
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
    if (frame->in_ring)
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
    struct frame_core unread;
    memset(&unread, 0, sizeof unread);
    while (reader_look(reader) == 1 && reader_next(reader, &unread) == 1) {
        frame_drop(&unread);
        memset(&unread, 0, sizeof unread);
    }
    if (kept == 0)
        reader->detached = true;
    return kept;
}
