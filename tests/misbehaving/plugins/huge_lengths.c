/* Gives lengths and counts that no buffer has. The host refuses each by name, reads none of it, and takes the sound ones after. */
#include "good.h"

static void release(void *argument) { ++*(int *)argument; }

SUPERVM_EXPORT int plugin_start(void)
{
    static char text[1 << 20];
    const uint8_t byte = 1;
    uint8_t *place;
    int released = 0;
    memset(text, 'x', sizeof text - 1);

    struct supervm_block_1 block = dev_block(1, 0);
    uint32_t *lengths[] = {&block.hash_length, &block.parent_length, &block.position_length};
    for (size_t each = 0; each < sizeof lengths / sizeof *lengths; each++) {
        uint32_t kept = *lengths[each];
        *lengths[each] = UINT32_MAX;
        EXPECT(sink->publish(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
        EXPECT(sink->publish_release(sink->host, &block, release, &released) == SUPERVM_INVALID_ARGUMENT);
        *lengths[each] = kept;
    }
    const uint64_t sizes[] = {UINT64_MAX, INT64_MAX, UINT64_MAX - 63, sink->max_payload + 1};
    for (size_t each = 0; each < sizeof sizes / sizeof *sizes; each++) {
        block.payload_length = sizes[each];
        EXPECT(sink->publish(sink->host, &block) == SUPERVM_TOO_LARGE);
        EXPECT(sink->try_publish(sink->host, &block) == SUPERVM_TOO_LARGE);
        EXPECT(sink->reserve(sink->host, sizes[each], &place) == SUPERVM_TOO_LARGE);
        EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
        EXPECT(sink->commit(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
    }
    block.payload_length = UINT64_MAX;
    int32_t answered = sink->publish_release(sink->host, &block, release, &released); /* Copied where the ring is shared. */
    EXPECT((answered == SUPERVM_INVALID_ARGUMENT || answered == SUPERVM_TOO_LARGE) && released == 4);

    struct supervm_reorg_1 reorg = {.struct_size = sizeof reorg, .orphan_length = 32, .from_height = 2, .to_height = 1,
        .orphans = &byte, .orphan_count = UINT64_MAX};
    EXPECT(sink->reorg(sink->host, &reorg) == SUPERVM_TOO_LARGE);
    reorg.orphan_count = (UINT64_C(1) << 59) + 1; /* Times 32 it would be one id. */
    EXPECT(sink->reorg(sink->host, &reorg) == SUPERVM_TOO_LARGE);
    reorg.orphan_length = UINT32_MAX;
    EXPECT(sink->reorg(sink->host, &reorg) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->finalized(sink->host, &byte, UINT32_MAX, 1) == SUPERVM_INVALID_ARGUMENT);

    EXPECT(host->host_submit_tx("dev", &byte, SIZE_MAX) == SUPERVM_NOT_GRANTED);
    EXPECT(host->host_submit_tx(text, &byte, 1) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(host->host_get_extension(text) == NULL);
    EXPECT(host->host_report_metric(text, 1.0) == SUPERVM_OK);
    host->host_log(SUPERVM_LOG_INFO, text);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
