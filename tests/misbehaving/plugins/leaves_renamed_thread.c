/* Leaves a thread behind that hides under another name. The host finds it all the same, and abandons the plugin. */
#include <sys/prctl.h>

#include "good.h"

static void *stay(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "python3");
    done();
    hang();
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, stay, NULL);
}
