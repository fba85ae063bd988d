/* Invariant: as in simple.h. */
#include "simple.h"

#include <string.h>

/* How many bytes a number takes; 0: there is none. */
static size_t number_at(struct span bytes, size_t most, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < bytes.length && i < most; i++) {
        *value += (uint64_t)(bytes.bytes[i] % 128) << (7 * i);
        if (bytes.bytes[i] < 128)
            return i + 1;
    }
    return 0;
}

static struct span behind(struct span bytes, size_t count)
{
    return (struct span){bytes.bytes + count, bytes.length - count};
}

static size_t part_length(struct span bytes, struct part *part, int depth)
{
    uint64_t tag;
    size_t used = number_at(bytes, 5, &tag), more;
    part->number = (uint32_t)(tag / 8);
    part->type = tag % 8;
    part->content = (struct span){NULL, 0};
    if (!used || tag >> 32 || part->number == 0)
        return 0;
    struct span rest = behind(bytes, used);
    switch (part->type) {
    case 0: more = number_at(rest, 10, &part->value); return more ? used + more : 0;
    case 1: return rest.length >= 8 ? used + 8 : 0;
    case 5: return rest.length >= 4 ? used + 4 : 0;
    case 2: {
        uint64_t length;
        more = number_at(rest, 5, &length);
        if (!more || length > rest.length - more)
            return 0;
        part->content = (struct span){rest.bytes + more, length};
        return used + more + length;
    }
    case 4: return used;
    case 3: {
        struct part inner;
        if (depth == 0)
            return 0;
        for (size_t at = used; at < bytes.length;) {
            size_t length = part_length(behind(bytes, at), &inner, depth - 1);
            if (!length)
                return 0;
            at += length;
            if (inner.type == 4)
                return inner.number == part->number ? at : 0;
        }
        return 0;
    }
    default: return 0;
    }
}

bool simple_part(struct span bytes, struct part *part)
{
    size_t length = part_length(bytes, part, MESSAGE_MAX_DEPTH);
    part->whole = (struct span){bytes.bytes, length};
    return length != 0;
}

bool simple_is_framed(struct span bytes)
{
    struct part part;
    for (; bytes.length; bytes = behind(bytes, part.whole.length))
        if (!simple_part(bytes, &part) || part.type == 4)
            return false;
    return true;
}

bool simple_last(struct span bytes, uint32_t number, uint32_t type, struct part *part)
{
    struct part each;
    bool found = false;
    for (; bytes.length && simple_part(bytes, &each); bytes = behind(bytes, each.whole.length)) {
        if (each.number != number || each.type != type)
            continue;
        *part = each;
        found = true;
    }
    return found;
}

size_t simple_merged(struct span bytes, uint32_t number, uint32_t first, uint32_t last, uint8_t *to)
{
    struct part each;
    size_t length = 0;
    for (; bytes.length && simple_part(bytes, &each); bytes = behind(bytes, each.whole.length)) {
        if (each.type != 2 || each.number < first || each.number > last)
            continue;
        if (each.number != number) {
            length = 0;
        } else if (each.content.length) {
            memcpy(to + length, each.content.bytes, each.content.length);
            length += each.content.length;
        }
    }
    return length;
}
