/* Calls the host out of the release of a payload, which it must not. Nothing waits for itself, and each payload comes back once. */
#include "good.h"

static atomic_int released;

static void release(void *argument)
{
    struct supervm_block_1 block = dev_block((uint64_t)(uintptr_t)argument, 0);
    sink->publish(sink->host, &block);
    host->host_log(SUPERVM_LOG_INFO, "out of a release");
    host->host_report_metric("released", 1.0);
    atomic_fetch_add(&released, 1);
}

SUPERVM_EXPORT int plugin_start(void)
{
    for (uint64_t height = 1; height <= 10; height++) {
        struct supervm_block_1 block = dev_block(height, 0);
        block.payload = (const uint8_t *)"kept by the plugin";
        block.payload_length = 18;
        EXPECT(sink->publish_release(sink->host, &block, release, (void *)(uintptr_t)(height + 10)) == SUPERVM_OK);
    }
    struct supervm_block_1 wrong = dev_block(1, 0);
    wrong.struct_size = 0;
    EXPECT(sink->publish_release(sink->host, &wrong, release, (void *)(uintptr_t)21) == SUPERVM_INVALID_ARGUMENT);
    while (atomic_load(&released) < 11)
        rest();
    done();
    return 0;
}
