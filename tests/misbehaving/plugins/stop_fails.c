/* plugin_stop answers 9. The host names the call and the number, and unloads it all the same. */
#include "good.h"

SUPERVM_EXPORT int plugin_stop(void) { return 9; }
