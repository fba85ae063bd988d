/* Frees what the host gave it. It ends its process: SIGABRT. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    void (*volatile give_back)(void *) = free;
    give_back((void *)host);
    return 0;
}
