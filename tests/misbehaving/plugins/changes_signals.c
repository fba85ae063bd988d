/* Ignores SIGTERM for its process, and blocks all signals in the host's thread. Nothing in its process hinders it. */
#include <signal.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    sigset_t all;
    sigfillset(&all);
    EXPECT(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    EXPECT(signal(SIGTERM, SIG_IGN) != SIG_ERR);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
