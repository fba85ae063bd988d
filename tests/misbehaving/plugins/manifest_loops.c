/* plugin_get_manifest_json never returns. The host names the deadline, and abandons it. */
#include "good.h"

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    hang();
    return NULL;
}
