/* Knows only a major version of the ABI that no host has yet, and refuses this one. The host names the call and its answer. */
#include "good.h"

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    return ((const struct supervm_host_vtable *)vtable)->abi_major == 99 ? 0 : 99;
}
