/* Asks to be shut down, again and again, with reasons that differ. The host keeps the first, and counts a failure. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(publish_chain(10) == SUPERVM_OK);
    for (int reason = 42; reason < 60; reason++)
        host->host_request_shutdown(reason);
    return 0;
}
