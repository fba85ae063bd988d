/* Calls _exit, past everything that wanted to be told. It ends its process: status 4. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void) { _exit(4); }
