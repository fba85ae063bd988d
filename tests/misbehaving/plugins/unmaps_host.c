/* Unmaps the pages of the host's table. It ends its process: SIGSEGV. */
#include <sys/mman.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    munmap((void *)((uintptr_t)host & ~(uintptr_t)4095), 4096);
    done();
    return 0;
}
