/* hello.c - the smallest useful plugin: ten blocks of a chain of its own, then the end of input. */
#include <stdio.h>
#include <supervm/supervm.h>

#define BLOCKS 10

static const struct supervm_host_vtable *host;

const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.supervm.hello\", \"name\": \"Hello\", \"version\": \"0.1.0\", \"chain\": \"dev\","
           " \"capabilities\": [\"block_stream\"]}";
}

void plugin_free_string(char *s) { (void)s; /* The string above is static. */ }

int plugin_init(void *host_api_vtable)
{
    host = host_api_vtable;
    return host->struct_size >= sizeof *host ? 0 : 1; /* 1: the host is too old for extensions. */
}

/* This little work is done inside plugin_start; a plugin with more to do starts a thread here and returns. */
int plugin_start(void)
{
    const struct supervm_block_sink_1 *sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    const struct supervm_resume_1 *resume = host->host_get_extension(SUPERVM_RESUME_1);
    const uint8_t *kept;
    uint64_t kept_length;
    uint8_t next = 0; /* Height of the next block, and all this plugin has for a position. */
    if (sink == NULL)
        return 2; /* The manifest lists block_stream, so the policy refused it. */
    if (resume != NULL && resume->position(resume->host, &kept, &kept_length) == SUPERVM_OK && kept_length == 1)
        next = kept[0];
    host->host_log(SUPERVM_LOG_INFO, "hello");
    for (; next < BLOCKS; next++) {
        uint8_t id[32] = {[30] = 1, [31] = next}, parent[32] = {[30] = next > 0, [31] = next > 0 ? next - 1 : 0};
        uint8_t position = next + 1;
        char text[32];
        struct supervm_block_1 block = {.struct_size = sizeof block, .height = next, .final_height = SUPERVM_HEIGHT_UNKNOWN,
                                        .time = SUPERVM_TIME_UNKNOWN, .hash = id, .hash_length = sizeof id, .parent = parent,
                                        .parent_length = sizeof parent, .position = &position, .position_length = 1};
        block.payload_length = (uint64_t)snprintf(text, sizeof text, "hello, block %d", next);
        block.payload = (const uint8_t *)text;
        int32_t status = sink->publish(sink->host, &block);
        if (status != SUPERVM_OK)
            return status == SUPERVM_STOPPING ? 0 : 3;
    }
    return sink->end_of_input(sink->host) == SUPERVM_OK ? 0 : 3;
}

int plugin_stop(void) { return 0; /* No thread to end, nothing to free. */ }
