/* plugin_start never returns, whatever is called. The host names the deadline, and abandons it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    hang();
    return 0;
}
