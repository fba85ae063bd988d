/* Writes past the end of its memory, over what malloc keeps there, and frees. It ends its process: SIGABRT. */
#include "good.h"

#define BLOCKS 64

SUPERVM_EXPORT int plugin_start(void)
{
    volatile char *blocks[BLOCKS];
    for (size_t each = 0; each < BLOCKS; each++)
        blocks[each] = malloc(64);
    for (size_t each = 0; each < BLOCKS; each++)
        for (size_t at = 0; at < 200; at++)
            blocks[each][at] = (char)0xff;
    for (size_t each = 0; each < BLOCKS; each++)
        free((void *)blocks[each]);
    return 0;
}
