/* What is easier said in C. In a file of its own: cgo's declarations of the exported functions are not quite those of plugin.h. */
#include "glue.h"

#include <stddef.h>
#include <string.h>

#include <supervm/supervm.h>

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;

int remember(void *vtable)
{
    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    return sink ? 0 : 1;
}
void say(const char *text) { host->host_log(SUPERVM_LOG_INFO, text); }
int publish(uint64_t height, const char *payload)
{
    uint8_t hash[32] = {0}, parent[32] = {0};
    uint64_t below = height - 1;
    memcpy(hash, &height, sizeof height);
    memcpy(parent, &below, sizeof below);
    struct supervm_block_1 block = {.struct_size = sizeof block, .height = height, .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN, .hash = hash, .hash_length = 32, .parent = parent, .parent_length = 32,
        .position = (const uint8_t *)&height, .position_length = sizeof height, .payload = (const uint8_t *)payload,
        .payload_length = strlen(payload)};
    return sink->publish(sink->host, &block);
}
int end_of_input(void) { return sink->end_of_input(sink->host); }
