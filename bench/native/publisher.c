/* A plugin that publishes as fast as it can, from a thread of its own on the last CPU: {"count": n, "length": n, "way": 0..2}. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "blocks.h"
#include "supervm/supervm.h"

enum way { COPY = 0, RESERVE = 1, RELEASE = 2 };

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static pthread_t thread;
static int started;
static unsigned long long count, length;
static unsigned way, cpu;

const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.supervm.bench\", \"name\": \"Bench\", \"version\": \"0.1.0\", \"chain\": \"dev\","
           " \"capabilities\": [\"block_stream\"]}";
}

void plugin_free_string(char *text)
{
    (void)text;
}

int plugin_init(void *vtable)
{
    const struct supervm_config_1 *config;
    const char *text;
    uint64_t text_length;
    char copy[256] = "";

    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    config = host->host_get_extension(SUPERVM_CONFIG_1);
    if (!sink || !config || config->get(config->host, &text, &text_length) != SUPERVM_OK || text_length >= sizeof copy)
        return 1;
    memcpy(copy, text, text_length);
    return sscanf(copy, "{\"count\": %llu, \"length\": %llu, \"way\": %u, \"cpu\": %u}", &count, &length, &way, &cpu) == 4 ? 0 : 2;
}

static void keep(void *argument)
{
    (void)argument; /* The pool outlives every payload. */
}

static void *publish(void *argument)
{
    struct pool *pool = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);

    uint64_t hash[4] = {0}, parent[4] = {0};
    struct supervm_block_1 block = {
        .struct_size = sizeof block,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .hash = (const uint8_t *)hash,
        .parent = (const uint8_t *)parent,
        .hash_length = sizeof hash,
        .parent_length = sizeof parent,
        .payload_length = length,
    };
    for (uint64_t number = 0; number < count; number++) {
        int32_t status;
        uint8_t *place;
        block.height = number;
        hash[0] = number + 1;
        parent[0] = number;
        block.payload = pool_take(pool, number);
        switch ((enum way)way) {
        case RESERVE:
            status = sink->reserve(sink->host, length, &place);
            if (status == SUPERVM_OK) {
                memcpy(place, block.payload, length);
                status = sink->commit(sink->host, &block);
            }
            break;
        case RELEASE:
            status = sink->publish_release(sink->host, &block, keep, NULL);
            break;
        default:
            status = sink->publish(sink->host, &block);
        }
        if (status != SUPERVM_OK)
            break;
    }
    sink->end_of_input(sink->host);
    return NULL;
}

static struct pool pool;

int plugin_start(void)
{
    if (pool_fill(&pool, length) != 0 || pthread_create(&thread, NULL, publish, &pool) != 0)
        return 3;
    started = 1;
    return 0;
}

int plugin_stop(void)
{
    if (started)
        pthread_join(thread, NULL);
    started = 0;
    free(pool.bytes);
    pool.bytes = NULL;
    return 0;
}
