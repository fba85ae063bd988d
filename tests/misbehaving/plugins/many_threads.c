/* Calls everything from eight threads at once, without an order among its blocks. The host takes every block once. */
#include "good.h"

#define THREADS 8
#define BLOCKS 400

static atomic_uint_fast64_t next = 1;

static void *call(void *unused)
{
    (void)unused;
    uint64_t height;
    while ((height = atomic_fetch_add(&next, 1)) <= BLOCKS) {
        struct supervm_block_1 block = dev_block(height, 0);
        if (height % 3 == 0) {
            uint8_t *place;
            if (sink->reserve(sink->host, 32, &place) != SUPERVM_OK)
                return "reserve";
            memset(place, (int)height, 32);
            block.payload_length = 32;
            if (sink->commit(sink->host, &block) != SUPERVM_OK)
                return "commit";
        } else if (sink->publish(sink->host, &block) != SUPERVM_OK) {
            return "publish";
        }
        host->host_report_metric("height", (double)height);
        host->host_log(SUPERVM_LOG_DEBUG, "many");
        if (host->host_get_extension(SUPERVM_BLOCK_SINK_1) != sink)
            return "extension";
    }
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_t threads[THREADS];
    void *failed = NULL;
    for (int each = 0; each < THREADS; each++)
        EXPECT(pthread_create(&threads[each], NULL, call, NULL) == 0);
    for (int each = 0; each < THREADS; each++) {
        void *answer;
        pthread_join(threads[each], &answer);
        failed = failed ? failed : answer;
    }
    EXPECT(failed == NULL);
    done();
    return 0;
}
