/* What every row of the ring's bench sends: count blocks of length bytes, each with its number, so that no two are alike. */
#ifndef BENCH_BLOCKS_H
#define BENCH_BLOCKS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Payloads are taken in turn from a pool that a cache of the second level holds: reading them costs the producer little. */
#define POOL_BYTES (1u << 20)

struct pool {
    uint8_t *bytes;
    uint64_t length; /* Of one payload. */
    uint64_t slots;
};

static inline int pool_fill(struct pool *pool, uint64_t length)
{
    pool->length = length;
    pool->slots = length < POOL_BYTES ? POOL_BYTES / length : 1;
    pool->bytes = malloc(pool->slots * length);
    if (!pool->bytes)
        return -1;
    for (uint64_t at = 0; at < pool->slots * length; at++)
        pool->bytes[at] = (uint8_t)(at * 31 + (at >> 8));
    return 0;
}

static inline const uint8_t *pool_take(const struct pool *pool, uint64_t number)
{
    return pool->bytes + number % pool->slots * pool->length;
}

/* One payload byte per cache line. */
static inline uint64_t touch(const uint8_t *bytes, uint64_t length)
{
    uint64_t sum = 0;
    for (uint64_t at = 0; at < length; at += 64)
        sum += bytes[at];
    return sum;
}

#endif
