/* The least that a second process's blocks cost: one thread in C writes them into a ring, another copies them out of it, a stretch at a
 * time, into memory that its cache holds, and reads them there. Without the copy: what in process costs at least. */
#ifndef BENCH_RELAY_H
#define BENCH_RELAY_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "blocks.h"

struct relay {
    uint8_t *ring;
    uint64_t capacity, length, count; /* The capacity is a multiple of the length. */
    int cpu;
    struct pool pool;
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
};

static inline void *relay_produce(void *argument)
{
    struct relay *relay = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)relay->cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    uint64_t head = 0;
    for (uint64_t number = 0; number < relay->count; number++) {
        while (head + relay->length - atomic_load_explicit(&relay->tail, memory_order_acquire) > relay->capacity)
            ;
        memcpy(relay->ring + head % relay->capacity, pool_take(&relay->pool, number), relay->length);
        head += relay->length;
        atomic_store_explicit(&relay->head, head, memory_order_release);
    }
    return NULL;
}

/* Seconds, or less than 0 without memory. stretch: bytes that are copied at once, a divisor of the capacity; 0: read in place. */
static inline double relay_run(uint64_t length, uint64_t count, uint64_t capacity, uint64_t stretch, int cpu, uint64_t *seen)
{
    struct relay *relay = aligned_alloc(64, sizeof *relay);
    if (!relay)
        return -1;
    memset(relay, 0, sizeof *relay);
    *relay = (struct relay){.capacity = capacity, .length = length, .count = count, .cpu = cpu};
    relay->ring = malloc(capacity);
    uint8_t *landing = malloc(stretch + 1);
    pthread_t producer;
    if (!relay->ring || !landing || pool_fill(&relay->pool, length) != 0)
        return -1;
    memset(relay->ring, 1, capacity);
    memset(landing, 1, stretch + 1);
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    if (pthread_create(&producer, NULL, relay_produce, relay) != 0)
        return -1;
    uint64_t place = 0, all = length * count;
    while (place < all) {
        uint64_t take = stretch ? stretch : length;
        if (take > all - place)
            take = all - place;
        while (atomic_load_explicit(&relay->head, memory_order_acquire) < place + take)
            ;
        const uint8_t *bytes = relay->ring + place % capacity;
        if (stretch)
            bytes = memcpy(landing, bytes, take);
        *seen += touch(bytes, take);
        place += take;
        atomic_store_explicit(&relay->tail, place, memory_order_release);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    pthread_join(producer, NULL);
    free(relay->pool.bytes);
    free(relay->ring);
    free(landing);
    free(relay);
    return (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) * 1e-9;
}

#endif
