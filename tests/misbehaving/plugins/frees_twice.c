/* Frees its manifest twice when the host gives it back once. It ends its process: SIGABRT. */
#include "good.h"

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return strdup("{}");
}
SUPERVM_EXPORT void plugin_free_string(char *text)
{
    void (*volatile give_back)(void *) = free;
    give_back(text);
    give_back(text);
}
