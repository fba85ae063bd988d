#include "position.h"

#define FORMAT_VERSION 1
#define FLAG_OVERFLOW 1

static uint8_t *put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *out++ = (uint8_t)(value >> (8 * i));
    return out;
}

static uint64_t get(const uint8_t **in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t) * (*in)++ << (8 * i);
    return value;
}

size_t position_encode(const struct position *position, uint8_t out[POSITION_MAX_BYTES])
{
    uint8_t *at = put(out, FORMAT_VERSION, 1);
    at = put(at, position->overflow ? FLAG_OVERFLOW : 0, 1);
    for (size_t i = 0; i < position->count; i++) {
        at = put(at, position->cursors[i].file, 4);
        at = put(at, position->cursors[i].length, 4);
        at = put(at, position->cursors[i].offset, 8);
        at = put(at, position->cursors[i].fingerprint, 8);
    }
    return (size_t)(at - out);
}

bool position_decode(struct position *position, const uint8_t *bytes, size_t length)
{
    if (length < POSITION_HEADER_BYTES + POSITION_CURSOR_BYTES || length > POSITION_MAX_BYTES
        || (length - POSITION_HEADER_BYTES) % POSITION_CURSOR_BYTES != 0)
        return false;
    if (bytes[0] != FORMAT_VERSION || bytes[1] > FLAG_OVERFLOW)
        return false;
    position->overflow = bytes[1] == FLAG_OVERFLOW;
    position->count = (length - POSITION_HEADER_BYTES) / POSITION_CURSOR_BYTES;
    const uint8_t *at = bytes + POSITION_HEADER_BYTES;
    for (size_t i = 0; i < position->count; i++) {
        struct cursor *cursor = &position->cursors[i];
        cursor->file = (uint32_t)get(&at, 4);
        cursor->length = (uint32_t)get(&at, 4);
        cursor->offset = get(&at, 8);
        cursor->fingerprint = get(&at, 8);
        if (cursor->offset > INT64_MAX || (cursor->length != 0 && cursor->offset < cursor->length)
            || (i > 0 && cursor->file <= position->cursors[i - 1].file))
            return false;
    }
    return true;
}
