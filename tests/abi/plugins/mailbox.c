/* Hands the vtable it was given to the test: its configuration is the decimal address of a uint64_t to write it to. The test then
 * calls the host as the plugin. */
#include <stdlib.h>
#include <string.h>

#include "supervm/supervm.h"

static int counter; /* A global of each instance's own. */

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"test.mailbox\"}";
}

SUPERVM_EXPORT void plugin_free_string(char *s)
{
    (void)s;
}

SUPERVM_EXPORT int plugin_init(void *host_api_vtable)
{
    struct supervm_host_vtable *host = host_api_vtable;
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const char *json;
    uint64_t length;
    if (!config || config->get(config->host, &json, &length) != SUPERVM_OK || strlen(json) != length)
        return 1;
    uint64_t *mailbox = (uint64_t *)(uintptr_t)strtoull(json, NULL, 10);
    if (mailbox)
        *mailbox = (uint64_t)(uintptr_t)host;
    return 0;
}

SUPERVM_EXPORT int plugin_start(void)
{
    return ++counter;
}

SUPERVM_EXPORT int plugin_stop(void)
{
    return counter;
}
