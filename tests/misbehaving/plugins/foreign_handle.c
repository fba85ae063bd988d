/* Calls with a host pointer that the host never gave: inside its table, beside it, and anywhere. Each answer is a refusal. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    struct supervm_block_1 block = dev_block(1, 0);
    char *mine = sink->host;
    EXPECT(sink->publish(mine + 1, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish(mine + 64, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish(&block, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish((void *)UINTPTR_MAX, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->end_of_input((void *)8) == SUPERVM_INVALID_ARGUMENT);
    done();
    return 0;
}
