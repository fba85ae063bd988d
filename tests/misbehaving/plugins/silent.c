/* Promises a heartbeat and never beats. The host notices, names it, and stops it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(host->host_get_extension(SUPERVM_HEARTBEAT_1) != NULL);
    return 0;
}
