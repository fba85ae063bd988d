/* One plugin for each way through the lifecycle, chosen by -D. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "supervm/supervm.h"

#ifndef INIT_ANSWER
#define INIT_ANSWER 0
#endif
#ifndef START_ANSWER
#define START_ANSWER 0
#endif
#ifndef THREADS
#define THREADS 2
#endif

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static pthread_t threads[8];
static int frees; /* How often a string came back. */
static char *handed_over;

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
#if defined(MANIFEST_NULL)
    return NULL;
#elif defined(MANIFEST_HUGE)
    handed_over = malloc((1 << 20) + 2);
    memset(handed_over, ' ', (1 << 20) + 1);
    handed_over[(1 << 20) + 1] = 0;
    return handed_over;
#else
    handed_over = strdup("{}");
    return handed_over;
#endif
}

SUPERVM_EXPORT void plugin_free_string(char *s)
{
    if (s != handed_over)
        abort();
    frees++;
    handed_over = NULL;
    free(s);
}

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
#ifdef FREES
    if (frees != FREES)
        return 77;
#endif
    return INIT_ANSWER;
}

/* Publishes until it is told to stop. */
static void *work(void *argument)
{
    uint8_t payload[300] = {0};
    struct supervm_block_1 block = {
        .struct_size = sizeof block,
        .height = (uint64_t)(uintptr_t)argument,
        .payload = payload,
        .payload_length = sizeof payload,
    };
#ifdef RENAMED
    prctl(PR_SET_NAME, "my own name");
#endif
    while (sink && sink->publish(sink->host, &block) == SUPERVM_OK)
        ;
#ifdef LEAVES_THREAD
    for (;;)
        pause();
#endif
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
#ifdef WORKS_IN_START
    work(NULL);
    return START_ANSWER;
#endif
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int index = 0; index < THREADS; index++)
        pthread_create(&threads[index], NULL, work, (void *)(uintptr_t)index);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return START_ANSWER;
}

SUPERVM_EXPORT int plugin_stop(void)
{
    host->host_log(SUPERVM_LOG_INFO, "stopping");
#if !defined(LEAVES_THREAD) && !defined(WORKS_IN_START)
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
#endif
    return 0;
}
