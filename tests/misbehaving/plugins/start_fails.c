/* plugin_start answers 8, after ten blocks. The host keeps the blocks, names the call and the number, and calls stop. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    publish_chain(10);
    return 8;
}
