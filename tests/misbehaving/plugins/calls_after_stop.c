/* Calls everything from a thread after plugin_stop has returned, and publishes then. The host answers STOPPING, takes none of it. */
#include "good.h"

static atomic_int stopped;

static void *call(void *unused)
{
    (void)unused;
    while (!atomic_load(&stopped))
        rest();
    /* For longer than plugin_stop needs to return, and less than the host waits for threads that are about to end. */
    for (int turn = 0; turn < 100; turn++) {
        struct supervm_block_1 block = dev_block(11, 0);
        uint8_t *place;
        host->host_log(SUPERVM_LOG_INFO, "after stop");
        host->host_report_metric("after stop", 1.0);
        host->host_request_shutdown(5);
        host->host_get_extension(SUPERVM_BLOCK_SINK_1);
        if (sink->publish(sink->host, &block) != SUPERVM_STOPPING || sink->reserve(sink->host, 8, &place) != SUPERVM_STOPPING ||
            sink->end_of_input(sink->host) != SUPERVM_STOPPING || sink->commit(sink->host, &block) != SUPERVM_WRONG_STATE)
            abort();
        rest();
    }
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, call, NULL);
    pthread_detach(thread);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
SUPERVM_EXPORT int plugin_stop(void)
{
    atomic_store(&stopped, 1);
    return 0;
}
