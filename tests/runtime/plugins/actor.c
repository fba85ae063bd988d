/* A plugin that behaves as its configuration says: {"act": "..."}; see the names below. It serves the chain dev. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <supervm/supervm.h>

#ifndef ACTOR_ID
#define ACTOR_ID "org.example.actor"
#endif

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static const struct supervm_heartbeat_1 *heartbeat;
static const char *configuration = "{}";
static pthread_t thread;
static int has_thread;
static atomic_int stopping;
static atomic_int released;

static int acts(const char *name) { return strstr(configuration, name) != NULL; }
static void rest(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }
static void hang(void) {
    while (!atomic_load(&released)) rest();
}

SUPERVM_EXPORT const char *plugin_get_manifest_json(void) {
    return "{\"id\": \"" ACTOR_ID "\", \"name\": \"actor\", \"version\": \"1.0.0\", \"chain\": \"dev\", \"capabilities\": [\"block_stream\"]}";
}
SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }

static void give_back(void *payload) { free(payload); }

static int publish(uint64_t height, uint64_t parent, unsigned char tag) {
    unsigned char hash[32] = {0}, parent_hash[32] = {0}, weight[SUPERVM_WEIGHT_BYTES] = {1};
    char payload[64];
    memcpy(hash, &height, sizeof height);
    memcpy(parent_hash, &parent, sizeof parent);
    hash[31] = tag;
    int size = snprintf(payload, sizeof payload, "block %llu %d", (unsigned long long)height, tag);
    struct supervm_block_1 block = {.struct_size = sizeof block, .height = height, .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN, .hash = hash, .hash_length = 32, .parent = parent_hash, .parent_length = 32, .weight = weight,
        .position = (const uint8_t *)&height, .position_length = sizeof height, .payload = (const uint8_t *)payload,
        .payload_length = (uint64_t)size};
    if (acts("self-parent")) { block.parent = hash; }
    if (acts("hand-over")) {
        block.payload = (const uint8_t *)strdup(payload);
        return sink->publish_release(sink->host, &block, give_back, (void *)block.payload);
    }
    return sink->publish(sink->host, &block);
}

static void *work(void *unused) {
    (void)unused;
    if (acts("publish") || acts("self-parent")) {
        for (uint64_t height = 1; height <= 100 && !atomic_load(&stopping); height++)
            if (publish(height, height - 1, 0) != SUPERVM_OK) return NULL;
        sink->end_of_input(sink->host);
    }
    if (acts("flood"))
        for (uint64_t height = 1; publish(height, height - 1, 0) == SUPERVM_OK; height++) {}
    if (acts("shutdown")) host->host_request_shutdown(0);
    if (acts("gives-up")) host->host_request_shutdown(42);
    if (acts("chatter")) {
        for (int i = 0; i < 200000; i++) host->host_report_metric("chatter", i);
        sink->end_of_input(sink->host);
    }
    while (!atomic_load(&stopping)) {
        if (heartbeat != NULL && acts("beats")) heartbeat->beat(heartbeat->host);
        rest();
    }
    if (acts("leave-thread")) hang();
    return NULL;
}

/* Logs and never ends. */
static void *spam(void *unused) {
    (void)unused;
    for (;;) host->host_log(SUPERVM_LOG_INFO, "spam");
    return NULL;
}

/* Released in a callback of the host, it leaves a thread that nobody ends. */
static void *linger(void *unused) {
    (void)unused;
    hang();
    return NULL;
}
static void release_and_linger(void *unused) {
    pthread_t left;
    (void)unused;
    pthread_create(&left, NULL, linger, NULL);
}

/* What C++ does for a thread_local with a destructor: the library must stay until the thread has ended. */
extern int __cxa_thread_atexit_impl(void (*destructor)(void *), void *object, void *library);
extern void *__dso_handle;
static pthread_key_t key;
static void forget(void *unused) { (void)unused; }

static void open_files(void) {
    while (dup(0) >= 0) {}
}

SUPERVM_EXPORT int plugin_init(void *vtable) {
    host = vtable;
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    uint64_t length;
    if (config == NULL || config->get(config->host, &configuration, &length) != SUPERVM_OK) return 1;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    if (acts("heartbeat")) heartbeat = host->host_get_extension(SUPERVM_HEARTBEAT_1);
    host->host_log(SUPERVM_LOG_INFO, "actor: init");
    if (acts("init-fails")) return 7;
    if (acts("init-spams")) {
        pthread_create(&thread, NULL, spam, NULL);
        return 7;
    }
    if (acts("init-shutdown")) host->host_request_shutdown(0);
    if (acts("thread-data")) {
        pthread_key_create(&key, forget);
        pthread_setspecific(key, &key);
        __cxa_thread_atexit_impl(forget, NULL, &__dso_handle);
    }
    if (acts("linger")) {
        struct supervm_block_1 block = {.struct_size = sizeof block, .height = SUPERVM_HEIGHT_UNKNOWN,
            .final_height = SUPERVM_HEIGHT_UNKNOWN, .time = SUPERVM_TIME_UNKNOWN, .payload = (const uint8_t *)"x", .payload_length = 1};
        sink->publish_release(sink->host, &block, release_and_linger, NULL);
    }
    if (acts("init-hangs")) hang();
    return sink == NULL ? 2 : 0;
}

SUPERVM_EXPORT int plugin_start(void) {
    if (acts("start-fails")) return 8;
    if (acts("take-descriptors")) {
        open_files();
        return 8;
    }
    if (acts("start-waits"))
        while (!atomic_load(&stopping)) rest();
    if (acts("start-hangs")) hang();
    has_thread = pthread_create(&thread, NULL, work, NULL) == 0;
    return has_thread ? 0 : 3;
}

SUPERVM_EXPORT int plugin_stop(void) {
    atomic_store(&stopping, 1);
    if (acts("stop-hangs")) hang();
    if (has_thread && acts("leave-thread")) pthread_detach(thread);
    else if (has_thread) pthread_join(thread, NULL);
    host->host_log(SUPERVM_LOG_INFO, "actor: stopped");
    return acts("stop-fails") ? 9 : 0;
}
