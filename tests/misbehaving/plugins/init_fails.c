/* plugin_init answers 7. The host names the call and the number, and calls neither start nor stop. */
#include "good.h"

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    good_init(vtable);
    return 7;
}
SUPERVM_EXPORT int plugin_start(void) { abort(); }
SUPERVM_EXPORT int plugin_stop(void) { abort(); }
