/* The host as people write it with ctypes or cffi: a thread of the library calls back once for each block. */
#define _GNU_SOURCE
#include "callback.h"

#include <pthread.h>
#include <sched.h>

#include "blocks.h"

struct work {
    void (*on_block)(const struct callback_block *block);
    uint64_t count;
    uint64_t length;
    uint32_t cpu;
    int failed;
};

static void *publish(void *argument)
{
    struct work *work = argument;
    struct pool pool;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(work->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    if (pool_fill(&pool, work->length) != 0) {
        work->failed = 1;
        return NULL;
    }
    for (uint64_t number = 0; number < work->count; number++) {
        struct callback_block block = {.height = number, .payload = pool_take(&pool, number), .length = work->length};
        work->on_block(&block);
    }
    free(pool.bytes);
    return NULL;
}

int publish_all(void (*on_block)(const struct callback_block *block), uint64_t count, uint64_t length, uint32_t cpu)
{
    struct work work = {.on_block = on_block, .count = count, .length = length, .cpu = cpu};
    pthread_t thread;
    if (pthread_create(&thread, NULL, publish, &work) != 0)
        return -1;
    pthread_join(thread, NULL);
    return work.failed;
}
