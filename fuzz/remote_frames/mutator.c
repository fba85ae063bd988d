/* Invariant: what the mutator makes is no longer than it may be; whether it is a message does not matter.
 *
 * Random changes alone mostly break a length. So many changes are made to whole fields: one is repeated, removed, put elsewhere,
 * given another number, changed inside with its length made right again, or wrapped into a submessage.
 */
#include <stdlib.h>
#include <string.h>

#include "simple.h"

#define MOST_PARTS 64

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t limit);

static unsigned state;

static unsigned below(unsigned limit)
{
    state = state * 1103515245u + 12345u;
    return (state >> 8) % limit;
}

static size_t put_number(uint8_t *to, uint64_t value)
{
    size_t length = 0;
    for (; value > 127; value >>= 7)
        to[length++] = (uint8_t)(value | 128);
    to[length++] = (uint8_t)value;
    return length;
}

static size_t put_field(uint8_t *to, uint32_t number, const uint8_t *content, size_t length)
{
    size_t at = put_number(to, (uint64_t)number << 3 | 2);
    at += put_number(to + at, length);
    if (length)
        memcpy(to + at, content, length);
    return at + length;
}

static uint32_t any_number(void)
{
    return below(3) ? 20 + below(18) : 1 + below(14);
}

/* Writes the fields of a message with one of them changed; depth says how far in a change may be. to has room for limit + 64. */
static size_t change(struct span message, uint8_t *to, size_t limit, int depth)
{
    struct part parts[MOST_PARTS];
    size_t count = 0, length = 0;
    struct span rest = message;
    while (count < MOST_PARTS && rest.length && simple_part(rest, &parts[count])) {
        rest.bytes += parts[count].whole.length;
        rest.length -= parts[count].whole.length;
        count++;
    }
    size_t chosen = count ? below((unsigned)count) : 0, other = count ? below((unsigned)count) : 0;
    unsigned choice = below(7);
    for (size_t i = 0; i < count; i++) {
        const struct part *part = &parts[i];
        struct span whole = part->whole;
        size_t room = limit > length ? limit - length : 0;
        if (room < 2 * whole.length + 64)
            break;
        bool mine = i == chosen;
        if (mine && choice == 0)
            continue;
        if (mine && choice == 1)
            whole = parts[other].whole;
        if (room < 2 * whole.length + 64)
            break;
        if (mine && choice == 2 && part->type == 2) {
            length += put_field(to + length, any_number(), part->content.bytes, part->content.length);
        } else if (mine && choice >= 3 && choice <= 4 && part->type == 2) {
            uint8_t *inner = malloc(room + 64);
            size_t made;
            if (!inner)
                abort();
            if (depth > 0 && below(3)) {
                made = change(part->content, inner, room - 64, depth - 1);
            } else {
                made = part->content.length;
                if (made)
                    memcpy(inner, part->content.bytes, made);
                made = LLVMFuzzerMutate(inner, made, room - 64);
            }
            length += put_field(to + length, part->number, inner, made);
            free(inner);
        } else if (mine && choice == 5 && part->type == 0) {
            static const uint64_t values[] = {0, 1, 9, UINT32_MAX, INT64_MAX, UINT64_MAX, 999999999, 1000000000, 9223372036};
            length += put_number(to + length, (uint64_t)part->number << 3);
            length += put_number(to + length, values[below(sizeof values / sizeof *values)]);
        } else {
            memcpy(to + length, whole.bytes, whole.length);
            length += whole.length;
            if (mine && choice == 6) {
                memcpy(to + length, parts[other].whole.bytes, parts[other].whole.length <= room - whole.length ? parts[other].whole.length : 0);
                length += parts[other].whole.length <= room - whole.length ? parts[other].whole.length : 0;
            }
        }
    }
    return length;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t limit, unsigned seed)
{
    state = seed;
    if (size < 1 || limit < 64 || below(4) == 0)
        return LLVMFuzzerMutate(data, size, limit);
    uint8_t *made = malloc(2 * limit + 256);
    if (!made)
        abort();
    size_t length;
    if (below(16) == 0 && size + 16 < limit) { /* All of it as the one message of a batch. */
        uint8_t *inner = malloc(size + 16);
        if (!inner)
            abort();
        length = put_field(inner, 1, data + 1, size - 1);
        length = put_field(made, MESSAGE_BATCH, inner, length);
        free(inner);
    } else {
        length = change((struct span){data + 1, size - 1}, made, limit - 1, 3);
    }
    if (below(8) == 0)
        data[0] = (uint8_t)below(8);
    if (length > limit - 1)
        length = limit - 1;
    memcpy(data + 1, made, length);
    free(made);
    return length + 1;
}
