#include "frame.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *append(uint8_t *place, struct span span)
{
    if (span.length)
        memcpy(place, span.bytes, span.length);
    return place + span.length;
}

bool frame_from_message(struct frame_core *frame, const struct message *message, size_t kept, uint64_t generation, bool *views)
{
    struct record_header *header = &frame->header;
    struct span hash = {NULL, 0}, parent = {NULL, 0}, weight = {NULL, 0}, payload = {NULL, 0};
    size_t orphans = 0;
    header->height = header->final_height = SUPERVM_HEIGHT_UNKNOWN;
    header->time = SUPERVM_TIME_UNKNOWN;
    switch (message->body) {
    case MESSAGE_REORG:
        header->kind = RECORD_REORG;
        header->height = message->from_height;
        header->to_height = message->to_height;
        header->item_length = (uint8_t)message->orphan_length;
        orphans = message->orphan_count * message->orphan_length;
        break;
    case MESSAGE_FINALIZED:
        header->kind = RECORD_FINALIZED;
        header->height = message->finalized_height;
        hash = message->finalized_hash;
        break;
    case MESSAGE_END_OF_INPUT: header->kind = RECORD_END_OF_INPUT; break;
    default:
        header->kind = RECORD_BLOCK;
        header->height = message->height;
        header->final_height = message->final_height;
        header->time = message->time;
        hash = message->hash;
        parent = message->parent;
        weight = message->weight;
        payload = message->payload;
        break;
    }
    *views = payload.length && payload.length >= kept / FRAME_VIEW_SHARE;
    header->hash_length = (uint8_t)hash.length;
    header->parent_length = (uint8_t)parent.length;
    header->weight_length = weight.length ? SUPERVM_WEIGHT_BYTES : 0;
    header->position_length = (uint16_t)message->position.length;
    header->payload_length = payload.length + orphans;
    size_t tails = record_tails_length(header);
    size_t room = tails + (*views ? 0 : header->payload_length);
    uint8_t *place = malloc(room ? room : 1);
    if (!place) {
        memset(frame, 0, sizeof *frame);
        return false;
    }
    frame->record = place;
    frame->generation = generation;
    place = append(place, hash);
    place = append(place, parent);
    if (weight.length) {
        memset(place, 0, SUPERVM_WEIGHT_BYTES);
        append(place, weight);
        place += SUPERVM_WEIGHT_BYTES;
    }
    place = append(place, message->position);
    frame->outside = *views ? payload.bytes : place;
    if (orphans)
        message_orphans(message, place, orphans);
    else if (!*views)
        append(place, payload);
    return true;
}

static bool make_room(struct batch_frames *frames, size_t room)
{
    struct frame_core *more = realloc(frames->frames, room * sizeof *more);
    if (!more)
        return false;
    frames->frames = more;
    bool *views = realloc(frames->views, room * sizeof *views);
    if (!views)
        return false;
    frames->views = views;
    return true;
}

bool frames_from_batch(struct batch_frames *frames, const struct message *message, struct span chain, size_t kept,
                       uint64_t generation)
{
    struct batch batch = {.message = message};
    size_t room = 0;
    while (batch_next(&batch, chain, &frames->said, &frames->fault, &frames->at)) {
        if (frames->count == room) {
            room = room ? 2 * room : 64;
            if (!make_room(frames, room))
                return false;
        }
        struct frame_core *frame = &frames->frames[frames->count];
        memset(frame, 0, sizeof *frame);
        if (!frame_from_message(frame, &frames->said, kept, generation, &frames->views[frames->count]))
            return false;
        frames->count++;
    }
    return frames->fault == MESSAGE_SOUND;
}

void batch_frames_free(struct batch_frames *frames, size_t first)
{
    for (size_t number = first; number < frames->count; number++)
        free((void *)(uintptr_t)frames->frames[number].record);
    free(frames->frames);
    free(frames->views);
    *frames = (struct batch_frames){0};
}
