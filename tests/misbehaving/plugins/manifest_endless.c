/* Its manifest has no end within 2 MiB. The host reads 1 MiB, says so, and does not initialise it. */
#include "good.h"

static char text[2 << 20];

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    memset(text, ' ', sizeof text - 1);
    return text;
}
