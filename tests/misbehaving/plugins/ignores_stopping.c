/* Publishes on and on although the host answers STOPPING, and plugin_stop waits for that to end. The host abandons it. */
#include "good.h"

static pthread_t thread;

static void *publish(void *unused)
{
    (void)unused;
    for (uint64_t height = 1;; height++) {
        struct supervm_block_1 block = dev_block(height, 0);
        if (sink->publish(sink->host, &block) != SUPERVM_OK)
            rest();
    }
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_create(&thread, NULL, publish, NULL);
    done();
    return 0;
}
SUPERVM_EXPORT int plugin_stop(void)
{
    pthread_join(thread, NULL);
    return 0;
}
