/* Ends the host's own thread inside plugin_start. The call never comes back: the host names the deadline, and abandons it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_exit(NULL);
    return 0;
}
