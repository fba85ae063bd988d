/* plugin_init runs in a loop for ever, at full speed. The host names the deadline, and abandons it. */
#include "good.h"

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    good_init(vtable);
    for (volatile uint64_t turns = 0;; turns++)
        if (turns == UINT64_MAX)
            return 0;
}
