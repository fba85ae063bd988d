/* Says wrong sizes of its structs, and sets what is reserved. The host reads none of it; a longer struct it takes. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    struct supervm_block_1 block = dev_block(1, 0);
    const uint32_t sizes[] = {0, 1, sizeof(struct supervm_reorg_1) - 1, sizeof block - 1};
    for (size_t each = 0; each < sizeof sizes / sizeof *sizes; each++) {
        block.struct_size = sizes[each];
        EXPECT(sink->publish(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
        if (sizes[each] < sizeof(struct supervm_reorg_1))
            EXPECT(sink->reorg(sink->host, &(struct supervm_reorg_1){.struct_size = sizes[each]}) == SUPERVM_INVALID_ARGUMENT);
    }
    block = dev_block(1, 0);
    block.flags = 1;
    EXPECT(sink->publish(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
    block = dev_block(1, 0);
    block.reserved = 1;
    EXPECT(sink->publish(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
    block = dev_block(1, 0);
    block.struct_size = UINT32_MAX;
    EXPECT(sink->publish(sink->host, &block) == SUPERVM_OK);
    done();
    return 0;
}
