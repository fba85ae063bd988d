/* Its constructor writes through a wild pointer, before any call. It ends its process: SIGSEGV. */
#include "good.h"

__attribute__((constructor)) static void construct(void)
{
    *(volatile int *)(uintptr_t)16 = 1;
}
