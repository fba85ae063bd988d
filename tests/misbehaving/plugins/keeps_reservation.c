/* Never commits what it reserved. The host names it, and abandons the plugin, which may still write there. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    uint8_t *place;
    EXPECT(publish_chain(10) == SUPERVM_OK);
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    done();
    return 0;
}
