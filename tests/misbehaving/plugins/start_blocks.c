/* plugin_start works instead of returning, until it is stopped. The host names the deadline, stops it and unloads it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    while (!atomic_load(&stopping))
        rest();
    return 0;
}
