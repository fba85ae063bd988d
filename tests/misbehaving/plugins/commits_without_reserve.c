/* Commits and abandons what it never reserved, reserves twice, and commits more than it has. Each is refused by name. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    struct supervm_block_1 block = dev_block(1, 0);
    uint8_t *place;
    EXPECT(sink->commit(sink->host, &block) == SUPERVM_WRONG_STATE);
    EXPECT(sink->abandon(sink->host) == SUPERVM_WRONG_STATE);
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_BUSY);
    EXPECT(sink->publish(sink->host, &block) == SUPERVM_BUSY);
    EXPECT(sink->end_of_input(sink->host) == SUPERVM_BUSY);
    block.payload_length = 9;
    EXPECT(sink->commit(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->commit(sink->host, &block) == SUPERVM_WRONG_STATE);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
