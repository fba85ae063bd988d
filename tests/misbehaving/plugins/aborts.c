/* Calls abort. It ends its process: SIGABRT. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void) { abort(); }
