/* Reports numbers that are none, and gives up with the lowest reason that there is. The host says it as it was said. */
#include <limits.h>
#include <math.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    host->host_log(INT_MIN, "lowest level");
    host->host_log(INT_MAX, "highest level");
    EXPECT(host->host_report_metric("nan", NAN) == SUPERVM_OK);
    EXPECT(host->host_report_metric("infinity", -INFINITY) == SUPERVM_OK);
    EXPECT(host->host_request_shutdown(INT_MIN) == SUPERVM_OK);
    return 0;
}
