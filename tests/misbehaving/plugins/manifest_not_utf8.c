/* Its manifest is no UTF-8. The host says that it is no JSON, and does not initialise it. */
#include "good.h"

SUPERVM_EXPORT const char *plugin_get_manifest_json(void) { return "{\"id\": \"\xff\xfe\"}"; }
