#ifndef BENCH_CALLBACK_H
#define BENCH_CALLBACK_H

#include <stdint.h>

struct callback_block {
    uint64_t height;
    const uint8_t *payload;
    uint64_t length;
    uint8_t hash[32];
    uint8_t parent[32];
};

/* Returns when a thread of its own, on that CPU, has called on_block count times. 0: done. */
int publish_all(void (*on_block)(const struct callback_block *block), uint64_t count, uint64_t length, uint32_t cpu);

#endif
