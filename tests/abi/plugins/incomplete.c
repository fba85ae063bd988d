/* Exports four of the five functions. */
#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT const char *plugin_get_manifest_json(void)
{
    return "{}";
}

EXPORT int plugin_init(void *host)
{
    return host == NULL;
}

EXPORT int plugin_start(void)
{
    return 0;
}

EXPORT void plugin_free_string(char *s)
{
    (void)s;
}
