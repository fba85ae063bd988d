/* The release of a payload never returns. The host goes on, and abandons the plugin when it is to be unloaded. */
#include "good.h"

static void release(void *unused)
{
    (void)unused;
    hang();
}

SUPERVM_EXPORT int plugin_start(void)
{
    struct supervm_block_1 block = dev_block(1, 0);
    EXPECT(sink->publish_release(sink->host, &block, release, NULL) == SUPERVM_OK);
    done();
    return 0;
}
