/* Invariant: any bytes are refused with a named fault, or give columns from which the very same bytes can be put together again,
 * with the ids, the Merkle root and the commitment that these bytes have; never is anything touched out of bounds, not even where
 * the bytes change between the two passes.
 *
 * An input is four bytes that say how (enum how, then where and to what a byte changes), and the block. The mutator keeps blocks
 * deep: after most of its changes it makes commitment, Merkle root and nonce right again.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "bitcoin.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "system.h"

enum how {
    HOW_SEGWIT = 3,      /* Which height the network has. */
    HOW_CHANGE = 4,      /* One byte changes between the passes. */
    HOW_NO_MEMORY = 8,   /* The scratch memory cannot be had. */
    HOW_WRONG_SIZE = 16, /* The columns are not as long as they have to be. */
    HOW_LOW_LIMIT = 32,  /* The network allows no easy target. */
    HOW_TWO = 64,        /* The second half of the input takes the place of the first between the passes. */
    HOW_LARGE = 128,     /* With 1: more bytes than a block may have; else more weight. */
};

#define PREFIX_BYTES 4
#define LARGE_BYTES (BITCOIN_MAX_WEIGHT / 4 + 1)

bool no_memory;

void *system_malloc(size_t size)
{
    return no_memory ? NULL : malloc(size);
}

void require_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

/* A copy of its own, so that a byte too far is noticed. */
static uint8_t *copy_of(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length);
    REQUIRE(copy || length == 0);
    if (length)
        memcpy(copy, bytes, length);
    return copy;
}

/* The block with a first output script of LARGE_BYTES in its coinbase, or LARGE_BYTES and more of zeros behind it. */
static uint8_t *enlarged(const uint8_t *bytes, size_t *length, bool bytes_only)
{
    struct parts parts;
    if (!bytes_only && (!split_block(bytes, *length, &parts) || parts.transactions[0].output_count == 0))
        return NULL;
    size_t at = bytes_only ? *length : parts.transactions[0].first_output_script;
    size_t rest = bytes_only ? *length : at + 1 + bytes[at];
    if (!bytes_only && (bytes[at] >= 0xfd || rest > *length))
        return NULL;
    size_t more = bytes_only ? BITCOIN_MAX_WEIGHT : LARGE_BYTES;
    uint8_t *larger = calloc(1, *length + more + 5);
    REQUIRE(larger);
    memcpy(larger, bytes, at);
    size_t end = at;
    if (!bytes_only) {
        larger[end++] = 0xfe;
        for (int i = 0; i < 4; i++)
            larger[end++] = (uint8_t)(more >> (8 * i));
    }
    end += more;
    memcpy(larger + end, bytes + rest, *length - rest);
    *length = end + *length - rest;
    uint8_t *exact = copy_of(larger, *length);
    free(larger);
    return exact;
}

static void run(uint8_t how, const uint8_t *prefix, uint8_t *bytes, size_t length, const uint8_t *second)
{
    static const uint32_t heights[] = {0, 1, 500, UINT32_MAX};
    uint8_t limit[BITCOIN_HASH_BYTES];
    memset(limit, 0xff, sizeof limit);
    limit[31] = 0x7f;
    if (how & HOW_LOW_LIMIT) {
        memset(limit, 0, sizeof limit);
        if (prefix[1] & 1)
            memcpy(limit + 29, "\xff\xff\x7f", 3); /* The very target of regtest's blocks. */
    }
    struct bitcoin_block block = {.data = bytes, .length = length, .pow_limit = limit};
    enum bitcoin_fault fault = bitcoin_read(&block);
    REQUIRE(fault <= BITCOIN_NO_MEMORY && block.at <= length);
    if (fault != BITCOIN_SOUND) {
        check_refusal(&block, fault);
        return;
    }
    bool changed = false;
    if (second) {
        memcpy(bytes, second, length);
        changed = true;
    } else if (how & HOW_CHANGE) {
        size_t at = (prefix[1] | (size_t)prefix[2] << 8) % length;
        changed = bytes[at] != prefix[3];
        bytes[at] = prefix[3];
    }
    size_t size = bitcoin_columns_length(&block);
    REQUIRE(size < 64 * (length + 64));
    uint8_t *columns = malloc(size);
    REQUIRE(columns);
    no_memory = how & HOW_NO_MEMORY;
    fault = bitcoin_encode(&block, heights[how & HOW_SEGWIT], columns, how & HOW_WRONG_SIZE ? size - 1 : size);
    no_memory = false;
    REQUIRE(fault <= BITCOIN_NO_MEMORY);
    if (how & (HOW_NO_MEMORY | HOW_WRONG_SIZE))
        REQUIRE(fault == BITCOIN_NO_MEMORY);
    if (!changed) {
        REQUIRE(fault == BITCOIN_SOUND || fault >= BITCOIN_WRONG_ROOT);
        if (fault == BITCOIN_SOUND)
            check_columns(&block, columns, size, heights[how & HOW_SEGWIT]);
        else if (fault != BITCOIN_NO_MEMORY)
            check_refusal(&block, fault);
    }
    free(columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PREFIX_BYTES)
        return -1;
    uint8_t how = data[0];
    size_t length = size - PREFIX_BYTES;
    const uint8_t *second = NULL;
    uint8_t *bytes;
    if (how & HOW_TWO) {
        length /= 2;
        second = data + PREFIX_BYTES + length;
    }
    /* Four megabytes a time cost too much to be tried often. */
    if ((how & HOW_LARGE) && data[1] == 0xff && data[2] == 0xff && !second)
        bytes = enlarged(data + PREFIX_BYTES, &length, how & 1);
    else
        bytes = copy_of(data + PREFIX_BYTES, length);
    if (bytes)
        run(how, data, bytes, length, second);
    free(bytes);
    return 0;
}
