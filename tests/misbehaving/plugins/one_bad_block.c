/* Publishes a block without an id behind ten good ones. The host refuses it by name, and the position moves past it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(publish_chain(10) == SUPERVM_OK);
    struct supervm_block_1 block = dev_block(11, 0);
    block.hash = NULL;
    block.hash_length = 0;
    block.position = (const uint8_t *)"behind";
    block.position_length = 6;
    EXPECT(sink->publish(sink->host, &block) == SUPERVM_OK);
    done();
    return 0;
}
