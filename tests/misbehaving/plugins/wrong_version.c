/* Says another version than its plugin.yaml. The host names both, and does not initialise it. */
#include "good.h"

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.example.misbehaving\", \"name\": \"misbehaving\", \"version\": \"2.0.0\", \"chain\": \"dev\","
           " \"capabilities\": [\"block_stream\"]}";
}
