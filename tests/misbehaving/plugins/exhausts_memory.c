/* Takes all memory that it can get, far beyond what its plugin.yaml asks for, and keeps it. Nothing in its process hinders it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    /* 256 MiB are enough to tell it from a plugin that keeps to its 128 MB, and spare the machine that runs the tests. */
    for (int each = 0; each < 256; each++) {
        char *piece = malloc(1 << 20);
        if (piece == NULL)
            return 1;
        memset(piece, 1, 1 << 20);
    }
    done();
    return 0;
}
