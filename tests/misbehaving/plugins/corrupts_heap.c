/* Writes past the end of its memory, over what malloc keeps there, and frees. It ends its process: SIGABRT. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    volatile char *block = malloc(64), *behind = malloc(64);
    for (size_t at = 0; at < 200; at++)
        block[at] = (char)0xff;
    free((void *)behind);
    free((void *)block);
    return 0;
}
