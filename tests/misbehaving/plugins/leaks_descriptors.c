/* Opens descriptors and never closes them. The host unloads it; the descriptors are left to its process. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    for (int each = 0; each < 5; each++)
        EXPECT(dup(2) >= 0);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    done();
    return 0;
}
