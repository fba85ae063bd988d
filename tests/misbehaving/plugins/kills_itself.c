/* Sends its process a signal that nothing can catch. It ends its process: SIGKILL. */
#include <signal.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    kill(getpid(), SIGKILL);
    return 0;
}
