/* Gives blocks wrong heights, themselves as parents, and other bytes under a known id. The host refuses each by name. */
#include "good.h"

static int32_t publish(struct supervm_block_1 block)
{
    return sink->publish(sink->host, &block);
}

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(publish_chain(10) == SUPERVM_OK);
    struct supervm_block_1 block = dev_block(11, 0);
    block.height = 13; /* Skips two. */
    EXPECT(publish(block) == SUPERVM_OK);
    block.height = 10; /* Not above its parent. */
    EXPECT(publish(block) == SUPERVM_OK);
    block.height = UINT64_MAX - 1; /* Above what a store can hold. */
    EXPECT(publish(block) == SUPERVM_OK);
    block = dev_block(11, 0);
    block.parent = block.hash;
    EXPECT(publish(block) == SUPERVM_OK);
    block = dev_block(5, 0);
    block.height = 6; /* Known at 5. */
    EXPECT(publish(block) == SUPERVM_OK);
    block = dev_block(5, 0);
    block.payload_length = 3; /* Known with other bytes. */
    EXPECT(publish(block) == SUPERVM_OK);
    EXPECT(publish(dev_block(11, 0)) == SUPERVM_OK);
    done();
    return 0;
}
