/* Lets a C++ exception out of plugin_start. It ends its process: SIGABRT. */
#define _Thread_local thread_local
#include <stdexcept>

#include <supervm/supervm.h>

SUPERVM_EXPORT int plugin_start(void)
{
    throw std::runtime_error("out of the plugin");
}
