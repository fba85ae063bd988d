#include "event.h"

#include <string.h>

enum wire_type { VARINT = 0, LENGTH = 2 };

/* Numbers of fields. */
enum {
    CHAIN = 1,
    HEIGHT = 2,
    BLOCK_BYTES = 3,
    BLOCK_IR_JSON = 4,
    TIMESTAMP = 5,
    HASH = 6,
    PARENT = 7,
    STEP = 8,
    CURSOR = 9,
    BLOCK_IR = 13,
    BATCH = 23,
    BATCH_BLOCKS = 1,
    TIMESTAMP_SECONDS = 1,
};

static inline size_t varint_length(uint64_t value)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    return (bits + 6) / 7;
}

static inline uint8_t *write_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static inline size_t key_length(uint32_t number)
{
    return varint_length((uint64_t)number << 3);
}

static inline uint8_t *write_key(uint8_t *to, uint32_t number, enum wire_type type)
{
    return write_varint(to, (uint64_t)number << 3 | type);
}

/* Key and length of a field of so many bytes. */
static inline size_t opening_length(uint32_t number, size_t length)
{
    return key_length(number) + varint_length(length);
}

static inline uint8_t *write_opening(uint8_t *to, uint32_t number, size_t length)
{
    return write_varint(write_key(to, number, LENGTH), length);
}

static inline size_t bytes_length(uint32_t number, struct span span)
{
    return span.length ? opening_length(number, span.length) + span.length : 0;
}

static inline uint8_t *write_bytes(uint8_t *to, uint32_t number, struct span span)
{
    if (!span.length)
        return to;
    to = write_opening(to, number, span.length);
    memcpy(to, span.bytes, span.length);
    return to + span.length;
}

static inline size_t number_length(uint32_t number, uint64_t value)
{
    return value ? key_length(number) + varint_length(value) : 0;
}

static inline uint8_t *write_number(uint8_t *to, uint32_t number, uint64_t value)
{
    return value ? write_varint(write_key(to, number, VARINT), value) : to;
}

size_t event_measure(struct event *event)
{
    size_t time = number_length(TIMESTAMP_SECONDS, (uint64_t)event->seconds);
    event->head = bytes_length(CHAIN, event->chain) + number_length(HEIGHT, event->height);
    if (event->payload.length)
        event->head += opening_length(BLOCK_BYTES, event->payload.length);
    event->tail = bytes_length(BLOCK_IR_JSON, event->json) + opening_length(TIMESTAMP, time) + time + bytes_length(HASH, event->hash) +
                  bytes_length(PARENT, event->parent) + number_length(STEP, event->step) + bytes_length(CURSOR, event->cursor) +
                  bytes_length(BLOCK_IR, event->ir);
    return event->head + event->payload.length + event->tail;
}

uint8_t *event_write_head(const struct event *event, uint8_t *to)
{
    to = write_bytes(to, CHAIN, event->chain);
    to = write_number(to, HEIGHT, event->height);
    return event->payload.length ? write_opening(to, BLOCK_BYTES, event->payload.length) : to;
}

uint8_t *event_write_tail(const struct event *event, uint8_t *to)
{
    uint64_t seconds = (uint64_t)event->seconds;
    to = write_bytes(to, BLOCK_IR_JSON, event->json);
    to = write_opening(to, TIMESTAMP, number_length(TIMESTAMP_SECONDS, seconds));
    to = write_number(to, TIMESTAMP_SECONDS, seconds);
    to = write_bytes(to, HASH, event->hash);
    to = write_bytes(to, PARENT, event->parent);
    to = write_number(to, STEP, event->step);
    to = write_bytes(to, CURSOR, event->cursor);
    return write_bytes(to, BLOCK_IR, event->ir);
}

uint8_t *event_write_prefix(uint8_t *to, size_t length)
{
    *to++ = 0;
    for (int shift = 24; shift >= 0; shift -= 8)
        *to++ = (uint8_t)(length >> shift);
    return to;
}

size_t event_batch_head(size_t items)
{
    return opening_length(BATCH, items);
}

uint8_t *event_write_batch_head(uint8_t *to, size_t items)
{
    return write_opening(to, BATCH, items);
}

size_t event_item_head(size_t length)
{
    return opening_length(BATCH_BLOCKS, length);
}

uint8_t *event_write_item_head(uint8_t *to, size_t length)
{
    return write_opening(to, BATCH_BLOCKS, length);
}
