/* Calls itself until the stack is used up. It ends its process: SIGSEGV. */
#include "good.h"

static int deeper(volatile int *depth)
{
    volatile int next = *depth + 1;
    return deeper(&next) + next;
}

SUPERVM_EXPORT int plugin_start(void)
{
    volatile int depth = 0;
    return deeper(&depth);
}
