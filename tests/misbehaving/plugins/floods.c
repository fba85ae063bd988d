/* Logs and reports metrics as fast as it can until it is stopped. The host drops what it cannot take, and counts it. */
#include "good.h"

static pthread_t thread;

static void *flood(void *unused)
{
    (void)unused;
    while (!atomic_load(&stopping)) {
        host->host_log(SUPERVM_LOG_INFO, "a line that says nothing");
        host->host_report_metric("nothing", 0.0);
    }
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    return pthread_create(&thread, NULL, flood, NULL);
}
SUPERVM_EXPORT int plugin_stop(void)
{
    atomic_store(&stopping, 1);
    pthread_join(thread, NULL);
    return 0;
}
