/* Asks to be shut down while it is initialised. The host stops and unloads it: that is no failure. */
#include "good.h"

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    good_init(vtable);
    return host->host_request_shutdown(0);
}
