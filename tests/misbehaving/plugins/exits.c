/* Calls exit in a thread. It ends its process: status 3. */
#include "good.h"

static void *leave(void *unused)
{
    (void)unused;
    exit(3);
}

SUPERVM_EXPORT int plugin_start(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, leave, NULL);
    pthread_join(thread, NULL);
    return 0;
}
