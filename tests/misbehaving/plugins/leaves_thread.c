/* plugin_stop returns while a thread of it still runs. The host names the thread, and abandons the plugin. */
#include "good.h"

static void *stay(void *unused)
{
    (void)unused;
    hang();
    return NULL;
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, stay, NULL) == 0);
    done();
    return 0;
}
