/* Invariant: any bytes are refused with a named fault, or give what a slow and simple reader finds in them, as frames too; never is
 * anything touched out of bounds, and a refusal for the encoding is never given to what is well framed and whose texts are ASCII.
 *
 * An input is one byte that says how, and the message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "simple.h"
#include "system.h"

#define REQUIRE(condition) ((condition) ? (void)0 : require_failed(#condition, __LINE__))

enum how {
    HOW_CHAIN = 1,     /* The plugin has a chain. */
    HOW_KEPT = 2,      /* A view would keep far more than the message. */
    HOW_NO_MEMORY = 4, /* The frame's memory cannot be had; of a batch's, so many pieces can as the bits above say. */
    HOW_PIECES_SHIFT = 3,
};

enum { VARINT = 0, LENGTH = 2 };

static bool no_memory;
static size_t pieces; /* Of memory that can be had all the same. */

static bool granted(void)
{
    if (!no_memory)
        return true;
    return pieces && pieces--;
}

void *system_malloc(size_t size)
{
    return granted() ? malloc(size) : NULL;
}

void *system_realloc(void *place, size_t size)
{
    return granted() ? realloc(place, size) : NULL;
}

static void require_failed(const char *what, int line)
{
    fprintf(stderr, "harness.c:%d: not so: %s\n", line, what);
    abort();
}

static const struct span nothing = {NULL, 0};

static struct span bytes_of(struct span message, uint32_t number)
{
    struct part part;
    return simple_last(message, number, LENGTH, &part) ? part.content : nothing;
}

static uint64_t number_of(struct span message, uint32_t number, uint64_t otherwise)
{
    struct part part;
    return simple_last(message, number, VARINT, &part) ? part.value : otherwise;
}

static bool same(struct span left, struct span right)
{
    return left.length == right.length && (left.length == 0 || memcmp(left.bytes, right.bytes, left.length) == 0);
}

static bool inside(struct span part, struct span whole)
{
    return part.length == 0 || (part.bytes >= whole.bytes && part.bytes + part.length <= whole.bytes + whole.length);
}

/* The number of the body that counts; 0: none. */
static uint32_t body_of(struct span message)
{
    uint32_t body = 0;
    struct part part;
    for (; message.length && simple_part(message, &part); message.bytes += part.whole.length, message.length -= part.whole.length)
        if (part.type == LENGTH && part.number >= MESSAGE_REORG && part.number <= MESSAGE_LAST_BODY)
            body = part.number;
    return body;
}

static struct span merged(struct span message, uint32_t number, uint32_t first, uint32_t last)
{
    uint8_t *bytes = malloc(message.length + 1);
    REQUIRE(bytes);
    return (struct span){bytes, simple_merged(message, number, first, last, bytes)};
}

static int64_t time_of(struct span message)
{
    struct part part;
    if (!simple_last(message, 5, LENGTH, &part))
        return SUPERVM_TIME_UNKNOWN;
    struct span time = merged(message, 5, 5, 5);
    int64_t seconds = (int64_t)number_of(time, 1, 0), nanos = (int32_t)number_of(time, 2, 0);
    free((void *)time.bytes);
    REQUIRE(nanos >= 0 && nanos < 1000000000);
    __int128 nanoseconds = (__int128)seconds * 1000000000;
    if (nanoseconds < INT64_MIN || nanoseconds > INT64_MAX || nanoseconds + nanos > INT64_MAX)
        return SUPERVM_TIME_UNKNOWN;
    return (int64_t)(nanoseconds + nanos);
}

static void append(uint8_t *to, size_t *length, struct span span)
{
    if (span.length)
        memcpy(to + *length, span.bytes, span.length);
    *length += span.length;
}

static void check_frame(const struct message *message, struct span bytes, struct span body, uint8_t how, size_t kept)
{
    struct frame_core frame;
    bool views = false;
    memset(&frame, 0, sizeof frame);
    no_memory = how & HOW_NO_MEMORY;
    bool made = frame_from_message(&frame, message, kept, 77, &views);
    no_memory = false;
    if (how & HOW_NO_MEMORY) {
        struct frame_core empty;
        memset(&empty, 0, sizeof empty);
        REQUIRE(!made && memcmp(&frame, &empty, sizeof frame) == 0);
        return;
    }
    const struct record_header *header = &frame.header;
    REQUIRE(made && frame.generation == 77 && !frame.in_place && !frame.reader && !frame.external && header->flags == 0);
    uint64_t height = SUPERVM_HEIGHT_UNKNOWN, final_height = SUPERVM_HEIGHT_UNKNOWN, to_height = 0;
    int64_t time = SUPERVM_TIME_UNKNOWN;
    struct span payload = nothing;
    uint8_t *orphans = NULL, tails[512];
    size_t length = 0;
    int kind = RECORD_END_OF_INPUT;
    if (message->body == MESSAGE_BLOCK) {
        kind = RECORD_BLOCK;
        height = number_of(bytes, 2, 0) ? number_of(bytes, 2, 0) : SUPERVM_HEIGHT_UNKNOWN;
        if (number_of(bytes, 14, 0)) {
            REQUIRE(height == SUPERVM_HEIGHT_UNKNOWN);
            height = 0;
        }
        final_height = number_of(bytes, 11, SUPERVM_HEIGHT_UNKNOWN);
        time = time_of(bytes);
        payload = bytes_of(bytes, 3);
        append(tails, &length, bytes_of(bytes, 6));
        append(tails, &length, bytes_of(bytes, 7));
        struct span weight = bytes_of(bytes, 12);
        if (weight.length) {
            memset(tails + length, 0, SUPERVM_WEIGHT_BYTES);
            memcpy(tails + length, weight.bytes, weight.length);
            length += SUPERVM_WEIGHT_BYTES;
        }
        REQUIRE(header->hash_length == bytes_of(bytes, 6).length && header->parent_length == bytes_of(bytes, 7).length);
        REQUIRE(header->weight_length == (weight.length ? SUPERVM_WEIGHT_BYTES : 0) && header->item_length == 0);
    } else if (message->body == MESSAGE_REORG) {
        kind = RECORD_REORG;
        height = number_of(body, 2, 0);
        to_height = number_of(body, 3, 0);
        REQUIRE(height >= to_height && height != SUPERVM_HEIGHT_UNKNOWN);
        orphans = malloc(body.length + 1);
        REQUIRE(orphans);
        payload = (struct span){orphans, simple_merged(body, 4, 4, 4, orphans)};
    } else if (message->body == MESSAGE_FINALIZED) {
        kind = RECORD_FINALIZED;
        height = number_of(body, 1, 0);
        append(tails, &length, bytes_of(body, 2));
        REQUIRE(length >= 1 && length <= SUPERVM_MAX_HASH_BYTES && header->hash_length == length);
    }
    append(tails, &length, bytes_of(bytes, 10));
    REQUIRE(header->kind == kind && header->height == height && header->final_height == final_height);
    REQUIRE(header->time == time && header->to_height == to_height && header->position_length == bytes_of(bytes, 10).length);
    REQUIRE(record_tails_length(header) == length && header->payload_length == payload.length);
    if (payload.length)
        REQUIRE(memcmp(frame_payload(&frame), payload.bytes, payload.length) == 0);
    if (length)
        REQUIRE(memcmp(frame_tails(&frame), tails, length) == 0);
    /* Kept memory is bounded by what the payload is, and a view is one. */
    REQUIRE(views == (message->body == MESSAGE_BLOCK && payload.length && payload.length >= kept / FRAME_VIEW_SHARE));
    if (views)
        REQUIRE(frame.outside == message->payload.bytes);
    free(orphans);
    free((void *)frame.record);
}

static void check_message(const struct message *message, struct span bytes, uint8_t how, struct span chain, size_t kept)
{
    struct span body = message->body ? merged(bytes, message->body, MESSAGE_REORG, MESSAGE_LAST_BODY) : nothing;
    REQUIRE(simple_is_framed(bytes) && message->body == body_of(bytes));
    REQUIRE(inside(message->chain, bytes) && inside(message->payload, bytes) && inside(message->hash, bytes));
    REQUIRE(inside(message->position, bytes) && inside(message->finalized_hash, bytes));
    if (chain.bytes && message->body <= MESSAGE_BATCH && message->chain.length)
        REQUIRE(same(message->chain, chain));
    if (message->body < MESSAGE_BATCH)
        check_frame(message, bytes, body, how, kept);
    const uint8_t *place = NULL;
    struct span piece;
    size_t length = 0;
    while (message_piece(message, &place, &piece)) {
        REQUIRE(inside(piece, bytes) && length + piece.length <= body.length);
        REQUIRE(piece.length == 0 || memcmp(piece.bytes, body.bytes + length, piece.length) == 0);
        length += piece.length;
    }
    REQUIRE(length == body.length);
    free((void *)body.bytes);
}

static bool same_frame(const struct frame_core *left, const struct frame_core *right)
{
    size_t length = record_tails_length(&left->header), payload = left->header.payload_length;
    return memcmp(&left->header, &right->header, sizeof left->header) == 0 && left->generation == right->generation
        && (length == 0 || memcmp(frame_tails(left), frame_tails(right), length) == 0)
        && (payload == 0 || memcmp(frame_payload(left), frame_payload(right), payload) == 0);
}

/* All frames of a batch at once are those of its messages one behind the other, up to the first that is not sound. */
static void check_frames(const struct message *message, uint8_t how, struct span chain, size_t kept)
{
    struct batch_frames frames = {0};
    no_memory = how & HOW_NO_MEMORY;
    pieces = how >> HOW_PIECES_SHIFT;
    bool sound = frames_from_batch(&frames, message, chain, kept, 77);
    bool refused = no_memory && pieces == 0;
    no_memory = false;
    pieces = 0;
    struct batch batch = {.message = message};
    struct message each;
    enum message_fault fault = MESSAGE_SOUND;
    size_t count = 0, at = 0;
    while (count < frames.count) {
        REQUIRE(batch_next(&batch, chain, &each, &fault, &at));
        struct frame_core frame;
        bool views = false;
        memset(&frame, 0, sizeof frame);
        REQUIRE(frame_from_message(&frame, &each, kept, 77, &views));
        REQUIRE(views == frames.views[count] && same_frame(&frame, &frames.frames[count]));
        free((void *)frame.record);
        count++;
    }
    bool more = batch_next(&batch, chain, &each, &fault, &at);
    REQUIRE(sound == (!more && fault == MESSAGE_SOUND));
    REQUIRE(!more || refused);
    if (!more)
        REQUIRE(frames.fault == fault && (fault == MESSAGE_SOUND || frames.at == at));
    /* What was taken is its taker's. */
    size_t taken = frames.count / 2;
    for (size_t number = 0; number < taken; number++)
        free((void *)frames.frames[number].record);
    batch_frames_free(&frames, taken);
    REQUIRE(!frames.frames && !frames.views && !frames.count);
}

static void check_batch(const struct message *message, struct span bytes, uint8_t how, struct span chain)
{
    struct span body = merged(bytes, MESSAGE_BATCH, MESSAGE_REORG, MESSAGE_LAST_BODY);
    struct span rest = body;
    struct batch batch = {.message = message};
    struct message each;
    enum message_fault fault;
    size_t at = 0;
    struct part part;
    while (batch_next(&batch, chain, &each, &fault, &at)) {
        do {
            REQUIRE(rest.length && simple_part(rest, &part));
            rest.bytes += part.whole.length;
            rest.length -= part.whole.length;
        } while (part.number != 1 || part.type != LENGTH);
        REQUIRE(same(each.whole, part.content) && each.body < MESSAGE_BATCH && inside(each.whole, bytes));
        check_message(&each, each.whole, how, chain, how & HOW_KEPT ? 100 * bytes.length : bytes.length);
    }
    REQUIRE(at <= bytes.length && fault <= MESSAGE_LONG_BATCH);
    if (fault == MESSAGE_SOUND) {
        REQUIRE(simple_is_framed(body));
        for (; rest.length && simple_part(rest, &part); rest.bytes += part.whole.length, rest.length -= part.whole.length)
            REQUIRE(part.number != 1 || part.type != LENGTH);
    }
    free((void *)body.bytes);
}

static bool is_ascii(struct span bytes)
{
    for (size_t i = 0; i < bytes.length; i++)
        if (bytes.bytes[i] >= 128)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return -1;
    uint8_t how = data[0];
    /* A copy of its own, so that a byte too far is noticed. */
    uint8_t *copy = malloc(size - 1 ? size - 1 : 1);
    REQUIRE(copy);
    memcpy(copy, data + 1, size - 1);
    struct span bytes = {copy, size - 1};
    struct span chain = how & HOW_CHAIN ? (struct span){(const uint8_t *)"bitcoin", 7} : nothing;
    struct message message;
    size_t at = 0;
    enum message_fault fault = message_read(bytes, chain, &message, &at);
    REQUIRE(at <= bytes.length && fault <= MESSAGE_LONG_BATCH);
    if (fault == MESSAGE_SOUND) {
        check_message(&message, bytes, how, chain, how & HOW_KEPT ? 100 * bytes.length : bytes.length);
        if (message.body == MESSAGE_BATCH) {
            check_batch(&message, bytes, how, chain);
            check_frames(&message, how, chain, how & HOW_KEPT ? 100 * bytes.length : bytes.length);
        }
    } else if (fault == MESSAGE_NOT_UTF8) {
        REQUIRE(!is_ascii(bytes));
    } else if (fault > MESSAGE_NOT_UTF8) {
        REQUIRE(simple_is_framed(bytes));
    }
    if (!simple_is_framed(bytes))
        REQUIRE(fault != MESSAGE_SOUND && fault <= MESSAGE_NOT_UTF8);
    free(copy);
    return 0;
}
