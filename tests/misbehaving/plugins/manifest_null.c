/* Its manifest is NULL. The host says so, gives nothing back, and does not initialise it. */
#include "good.h"

SUPERVM_EXPORT const char *plugin_get_manifest_json(void) { return NULL; }
SUPERVM_EXPORT void plugin_free_string(char *text)
{
    (void)text;
    abort();
}
