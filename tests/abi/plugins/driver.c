/* Loads on a block sink, called by the tests through ctypes: what must run in C, on several threads, or without the GIL. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "supervm/supervm.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* One thread that publishes count blocks of length bytes. The height is the block's number, its hash says thread and number. */
struct publisher {
    const struct supervm_block_sink_1 *sink;
    uint64_t count;
    uint64_t length;
    uint64_t number; /* Of the thread. */
    int32_t status;  /* Of the last publish. */
    uint32_t retry;  /* Use try_publish, and try again. */
    int64_t delay_ns;
    _Atomic uint64_t done;
    int64_t first_ns;
    int64_t last_ns;
    pthread_t thread;
};

static void *publish(void *argument)
{
    struct publisher *self = argument;
    uint8_t *payload = malloc(self->length + 1);
    memset(payload, (int)self->number, self->length);
    uint64_t hash[4] = {self->number, 0, 0, 0};
    uint64_t parent[4] = {self->number, 0, 0, 0};
    struct supervm_block_1 block = {
        .struct_size = sizeof block,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .hash = (const uint8_t *)hash,
        .parent = (const uint8_t *)parent,
        .payload = payload,
        .hash_length = 32,
        .parent_length = 32,
        .payload_length = self->length,
    };
    struct timespec delay = {.tv_sec = self->delay_ns / 1000000000, .tv_nsec = self->delay_ns % 1000000000};
    nanosleep(&delay, NULL);
    self->first_ns = now_ns();
    for (uint64_t number = 0; number < self->count; number++) {
        hash[1] = number;
        parent[1] = number - 1;
        block.height = number;
        do {
            self->status = self->retry ? self->sink->try_publish(self->sink->host, &block)
                                       : self->sink->publish(self->sink->host, &block);
        } while (self->retry && self->status == SUPERVM_WOULD_BLOCK);
        if (self->status != SUPERVM_OK)
            break;
        atomic_store_explicit(&self->done, number + 1, memory_order_relaxed);
    }
    self->last_ns = now_ns();
    free(payload);
    return NULL;
}

EXPORT struct publisher *publisher_start(const struct supervm_block_sink_1 *sink, uint64_t number, uint64_t count, uint64_t length,
                                         uint32_t retry, int64_t delay_ns)
{
    struct publisher *publisher = calloc(1, sizeof *publisher);
    publisher->sink = sink;
    publisher->number = number;
    publisher->count = count;
    publisher->length = length;
    publisher->retry = retry;
    publisher->delay_ns = delay_ns;
    if (pthread_create(&publisher->thread, NULL, publish, publisher) != 0) {
        free(publisher);
        return NULL;
    }
    return publisher;
}

EXPORT uint64_t publisher_done(const struct publisher *publisher)
{
    return atomic_load(&publisher->done);
}

/* Waits for the thread. Answers the status of its last publish. */
EXPORT int32_t publisher_join(struct publisher *publisher, uint64_t *done, int64_t *first_ns, int64_t *last_ns)
{
    pthread_join(publisher->thread, NULL);
    *done = atomic_load(&publisher->done);
    *first_ns = publisher->first_ns;
    *last_ns = publisher->last_ns;
    int32_t status = publisher->status;
    free(publisher);
    return status;
}

/* Keeps the caller (and, called through PyDLL, the GIL) for so long; says when. */
EXPORT void hold(int64_t duration_ns, int64_t *from_ns, int64_t *to_ns)
{
    struct timespec pause = {.tv_sec = duration_ns / 1000000000, .tv_nsec = duration_ns % 1000000000};
    *from_ns = now_ns();
    nanosleep(&pause, NULL);
    *to_ns = now_ns();
}

/* ---- release callbacks ---- */

static _Atomic uint64_t released;
static _Atomic int32_t released_on;

EXPORT void release(void *argument)
{
    atomic_store(&released_on, gettid());
    if (argument)
        ++*(uint64_t *)argument;
    atomic_fetch_add(&released, 1);
}

EXPORT void release_never(void *argument)
{
    (void)argument;
    for (;;)
        pause();
}

EXPORT uint64_t release_count(void)
{
    return atomic_load(&released);
}

EXPORT int32_t release_thread(void)
{
    return atomic_load(&released_on);
}

EXPORT int32_t this_thread(void)
{
    return gettid();
}

/* ---- calls out of a signal handler ---- */

static const struct supervm_host_vtable *signalled_host;
static const struct supervm_block_sink_1 *signalled_sink;
static int32_t signalled_publish;
static int32_t signalled_metric;

static void on_signal(int number)
{
    (void)number;
    struct supervm_block_1 block = {.struct_size = sizeof block};
    signalled_publish = signalled_sink->publish(signalled_sink->host, &block);
    signalled_metric = signalled_host->host_report_metric("signal", 1.0);
    signalled_host->host_log(SUPERVM_LOG_INFO, "from a signal handler");
}

/* Reserves, raises a signal whose handler publishes, commits. Answers what the handler's publish was told. */
EXPORT int32_t publish_in_handler(const struct supervm_host_vtable *host, const struct supervm_block_sink_1 *sink,
                                  int32_t *metric, int32_t *commit)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;
    struct supervm_block_1 block = {.struct_size = sizeof block, .payload_length = 8};
    uint8_t *payload;
    signalled_host = host;
    signalled_sink = sink;
    if (sink->reserve(sink->host, 8, &payload) != SUPERVM_OK)
        return 1;
    memset(payload, 'x', 8);
    sigaction(SIGUSR1, &action, &before);
    pthread_kill(pthread_self(), SIGUSR1);
    sigaction(SIGUSR1, &before, NULL);
    *commit = sink->commit(sink->host, &block);
    *metric = signalled_metric;

    return signalled_publish;
}

/* Reserves, lets another thread commit and abandon, then abandons. The answers of the other thread. */
struct thief {
    const struct supervm_block_sink_1 *sink;
    int32_t commit;
    int32_t abandon;
    int32_t try_publish;
};

static void *steal(void *argument)
{
    struct thief *thief = argument;
    struct supervm_block_1 block = {.struct_size = sizeof block};
    thief->commit = thief->sink->commit(thief->sink->host, &block);
    thief->abandon = thief->sink->abandon(thief->sink->host);
    thief->try_publish = thief->sink->try_publish(thief->sink->host, &block);
    return NULL;
}

EXPORT int32_t steal_reservation(const struct supervm_block_sink_1 *sink, int32_t answers[3])
{
    struct thief thief = {.sink = sink};
    uint8_t *payload;
    pthread_t thread;
    if (sink->reserve(sink->host, 8, &payload) != SUPERVM_OK || pthread_create(&thread, NULL, steal, &thief) != 0)
        return 1;
    pthread_join(thread, NULL);
    answers[0] = thief.commit;
    answers[1] = thief.abandon;
    answers[2] = thief.try_publish;
    return sink->abandon(sink->host);
}

/* ---- many log lines from many threads ---- */

struct logger {
    const struct supervm_host_vtable *host;
    uint64_t count;
    _Atomic uint64_t refused;
};

static void *log_much(void *argument)
{
    struct logger *logger = argument;
    for (uint64_t number = 0; number < logger->count; number++)
        if (logger->host->host_report_metric("busy", (double)number) != SUPERVM_OK)
            atomic_fetch_add(&logger->refused, 1);
    return NULL;
}

/* Answers how many samples were refused. */
EXPORT uint64_t report_from_threads(const struct supervm_host_vtable *host, uint64_t threads, uint64_t count)
{
    struct logger logger = {.host = host, .count = count};
    pthread_t handles[16];
    for (uint64_t index = 0; index < threads; index++)
        pthread_create(&handles[index], NULL, log_much, &logger);
    for (uint64_t index = 0; index < threads; index++)
        pthread_join(handles[index], NULL);
    return atomic_load(&logger.refused);
}
