/* Says end of input twice, and publishes on after it. The host takes what follows, and counts nothing twice. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    EXPECT(sink->end_of_input(sink->host) == SUPERVM_OK);
    EXPECT(publish_chain(5) == SUPERVM_OK);
    EXPECT(sink->end_of_input(sink->host) == SUPERVM_OK);
    EXPECT(sink->end_of_input(sink->host) == SUPERVM_OK);
    EXPECT(publish_chain(10) == SUPERVM_OK);
    EXPECT(sink->end_of_input(sink->host) == SUPERVM_OK);
    done();
    return 0;
}
