/* Says what is no UTF-8, with control characters and terminal commands in it. The host shows it harmless and goes on. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    host->host_log(SUPERVM_LOG_INFO, "\xff\xfe\x80 \xc3( \xed\xa0\x80 \033[2J\a\r\n end");
    EXPECT(host->host_report_metric("\xf0\x9f\x98 \x1b[31m", 1.0) == SUPERVM_OK);
    EXPECT(host->host_get_extension("supervm.\xff/1") == NULL);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
