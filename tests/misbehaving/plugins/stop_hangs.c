/* plugin_stop never returns. The host names the deadline, and abandons it. */
#include "good.h"

SUPERVM_EXPORT int plugin_stop(void)
{
    hang();
    return 0;
}
