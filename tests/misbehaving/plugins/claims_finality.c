/* Says that unknown, side and wrong blocks are final, and undoes what is final. The host refuses each by name. */
#include "good.h"

static int32_t publish(struct supervm_block_1 block)
{
    return sink->publish(sink->host, &block);
}

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(publish_chain(10) == SUPERVM_OK);
    EXPECT(sink->finalized(sink->host, dev_block(99, 7).hash, 32, 99) == SUPERVM_OK); /* Unknown. */
    EXPECT(sink->finalized(sink->host, dev_block(5, 0).hash, 32, 6) == SUPERVM_OK);   /* At another height. */
    EXPECT(sink->finalized(sink->host, dev_block(5, 0).hash, 32, UINT64_MAX - 1) == SUPERVM_OK);
    EXPECT(sink->finalized(sink->host, dev_block(8, 0).hash, 32, 8) == SUPERVM_OK); /* True. */
    struct supervm_block_1 below = dev_block(7, 1);
    uint8_t parent[32];
    memcpy(parent, dev_block(6, 0).hash, sizeof parent);
    below = dev_block(7, 1);
    below.parent = parent; /* A branch off a block below the last final one. */
    EXPECT(publish(below) == SUPERVM_OK);
    uint8_t orphans[3][32];
    for (uint64_t height = 10; height >= 8; height--)
        memcpy(orphans[10 - height], dev_block(height, 0).hash, 32);
    struct supervm_reorg_1 reorg = {.struct_size = sizeof reorg, .orphan_length = 32, .from_height = 10, .to_height = 7,
        .orphans = orphans[0], .orphan_count = 3};
    EXPECT(sink->reorg(sink->host, &reorg) == SUPERVM_OK); /* Below the last final block. */
    reorg.to_height = 9;
    EXPECT(sink->reorg(sink->host, &reorg) == SUPERVM_OK); /* Names more than it says. */
    done();
    return 0;
}
