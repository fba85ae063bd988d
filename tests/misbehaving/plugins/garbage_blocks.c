/* Publishes bytes that are no blocks. The host refuses each by name, and quarantines the plugin after so many. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    for (uint32_t number = 0; number < 50; number++) {
        uint8_t bytes[300];
        uint32_t state = number * 2654435761u + 1;
        for (size_t at = 0; at < sizeof bytes; at++) {
            state = state * 1664525u + 1013904223u;
            bytes[at] = (uint8_t)(state >> 24);
        }
        struct supervm_block_1 block = {
            .struct_size = sizeof block,
            .height = SUPERVM_HEIGHT_UNKNOWN,
            .final_height = SUPERVM_HEIGHT_UNKNOWN,
            .time = SUPERVM_TIME_UNKNOWN,
            .payload = bytes,
            .payload_length = number < 5 ? number : sizeof bytes,
        };
        EXPECT(sink->publish(sink->host, &block) == SUPERVM_OK);
    }
    return 0;
}
