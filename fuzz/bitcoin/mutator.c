/* Invariant: what the mutator makes is no longer than it may be; whether it is a block does not matter.
 *
 * Random changes alone never get past the Merkle root. So most changes are followed by making right again what a miner would.
 */
#include <stdlib.h>
#include <string.h>

#include "reference.h"

#define PREFIX_BYTES 4
#define NONCE_TRIES 32

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t limit);

static unsigned state;

static unsigned below(unsigned limit)
{
    state = state * 1103515245u + 12345u;
    return (state >> 8) % limit;
}

/* Commitment, Merkle root, target and nonce. */
static void mine(uint8_t *bytes, size_t length)
{
    static struct parts parts;
    bool repeated;
    if (!split_block(bytes, length, &parts))
        return;
    const struct part *coinbase = &parts.transactions[0];
    if (coinbase->commitment && coinbase->nonce && below(8) != 0)
        commitment_of(bytes, &parts, bytes + coinbase->commitment);
    root_of(bytes, &parts, false, bytes + 36, &repeated);
    if (below(16) != 0)
        memcpy(bytes + 72, "\xff\xff\x7f\x20", 4);
    for (unsigned try = 0; try < NONCE_TRIES; try++) {
        uint8_t hash[32];
        hash_twice(bytes, 80, hash);
        if (hash[31] < 0x7f)
            break;
        bytes[76]++;
    }
}

/* Copies, removes or exchanges whole transactions. */
static size_t shuffle(uint8_t *bytes, size_t length, size_t limit)
{
    static struct parts parts;
    if (!split_block(bytes, length, &parts) || parts.count > 200)
        return length;
    struct part from = parts.transactions[below((unsigned)parts.count)], to = parts.transactions[below((unsigned)parts.count)];
    size_t size = from.end - from.begin;
    unsigned choice = below(3);
    if (choice == 0 && parts.count > 1) {
        memmove(bytes + from.begin, bytes + from.end, length - from.end);
        bytes[80]--;
        return length - size;
    }
    if (size > limit - length)
        return length;
    uint8_t *copy = malloc(size);
    REQUIRE(copy);
    memcpy(copy, bytes + from.begin, size);
    size_t place = choice == 1 ? to.end : length;
    memmove(bytes + place + size, bytes + place, length - place);
    memcpy(bytes + place, copy, size);
    bytes[80]++;
    free(copy);
    return length + size;
}

/* Makes one output script longer or shorter, with its length byte. */
static size_t resize_script(uint8_t *bytes, size_t length, size_t limit)
{
    static struct parts parts;
    if (!split_block(bytes, length, &parts))
        return length;
    const struct part *part = &parts.transactions[below((unsigned)parts.count)];
    size_t at = part->first_output_script;
    if (part->output_count == 0 || bytes[at] >= 0xfd)
        return length;
    size_t before = bytes[at], after = below(0xfd);
    if (after > before && after - before > limit - length)
        return length;
    memmove(bytes + at + 1 + after, bytes + at + 1 + before, length - at - 1 - before);
    if (after > before)
        memset(bytes + at + 1 + before, 0x6a, after - before);
    bytes[at] = (uint8_t)after;
    return length + after - before;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t limit, unsigned seed)
{
    state = seed;
    if (size < PREFIX_BYTES + 81)
        return LLVMFuzzerMutate(data, size, limit);
    uint8_t *bytes = data + PREFIX_BYTES;
    size_t length = size - PREFIX_BYTES, most = limit - PREFIX_BYTES;
    switch (below(8)) {
    case 0: return LLVMFuzzerMutate(data, size, limit);
    case 1:
        for (int i = 0; i < PREFIX_BYTES; i++)
            data[i] = (uint8_t)below(256);
        if (below(2))
            data[0] &= 7;
        break;
    case 2: length = shuffle(bytes, length, most); break;
    case 3: length = resize_script(bytes, length, most); break;
    case 4: LLVMFuzzerMutate(bytes, 80, 80); break;
    case 5: case 6: {
        for (unsigned i = 1 + below(3); i > 0; i--)
            bytes[80 + below((unsigned)length - 80)] = (uint8_t)(below(2) ? below(256) : "\0\1\2\xfc\xfd\xfe\xff\x20"[below(8)]);
        break;
    }
    default: length = 80 + LLVMFuzzerMutate(bytes + 80, length - 80, most - 80); break;
    }
    if (below(8) != 0)
        mine(bytes, data[0] & 64 ? length / 2 : length);
    return PREFIX_BYTES + length;
}
