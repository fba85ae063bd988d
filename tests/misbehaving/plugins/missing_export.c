/* Has no plugin_stop. The host names the export, and loads nothing. */
#include <stddef.h>
#include <supervm/supervm.h>

SUPERVM_EXPORT const char *plugin_get_manifest_json(void) { return "{}"; }
SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }
SUPERVM_EXPORT int plugin_init(void *vtable) { return vtable == NULL; }
SUPERVM_EXPORT int plugin_start(void) { return 0; }
