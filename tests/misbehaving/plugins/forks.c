/* Forks, uses the host in the child, and never waits for it. The host's rings stay whole; the dead child is left to its process. */
#include <sys/wait.h>

#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(publish_chain(10) == SUPERVM_OK);
    pid_t child = fork();
    if (child == 0) {
        host->host_request_shutdown(6);
        _exit(0);
    }
    EXPECT(child > 0);
    siginfo_t ended;
    EXPECT(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT) == 0);
    done();
    return 0;
}
