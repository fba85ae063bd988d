/* Writes through a wild pointer. It ends its process: SIGSEGV. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    *(volatile int *)(uintptr_t)16 = 1;
    return 0;
}
