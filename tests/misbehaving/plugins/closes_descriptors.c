/* Closes every file descriptor of its process but the standard ones. It ends its process: the loop has lost its poll. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void) { return close_range(3, ~0u, 0); }
