/* Nothing wrong: what a plugin of this folder does where it does not define an export anew. The host mirrors its ten blocks. */
#include "good.h"

#ifndef CHAIN
#define CHAIN "dev"
#endif
#ifndef CAPABILITY
#define CAPABILITY "block_stream"
#endif

#define DEFAULT __attribute__((weak))

const struct supervm_host_vtable *host;
const struct supervm_block_sink_1 *sink;
atomic_int stopping;

int good_init(void *vtable)
{
    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    return 0;
}

struct supervm_block_1 dev_block(uint64_t height, uint8_t branch)
{
    static _Thread_local uint64_t id[4], parent[4];
    id[0] = height;
    parent[0] = height - 1;
    id[3] = parent[3] = branch;
    return (struct supervm_block_1){
        .struct_size = sizeof(struct supervm_block_1),
        .height = height,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .hash = (const uint8_t *)id,
        .parent = (const uint8_t *)parent,
        .position = (const uint8_t *)id,
        .payload = (const uint8_t *)id,
        .hash_length = sizeof id,
        .parent_length = sizeof parent,
        .position_length = sizeof id[0],
        .payload_length = sizeof id,
    };
}

int publish_chain(uint64_t count)
{
    for (uint64_t height = 1; height <= count; height++) {
        struct supervm_block_1 block = dev_block(height, 0);
        int32_t status = sink->publish(sink->host, &block);
        if (status != SUPERVM_OK)
            return status;
    }
    return SUPERVM_OK;
}

void done(void)
{
    host->host_log(SUPERVM_LOG_INFO, "done");
}

SUPERVM_EXPORT DEFAULT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.example.misbehaving\", \"name\": \"misbehaving\", \"version\": \"1.0.0\", \"chain\": \"" CHAIN
           "\", \"capabilities\": [\"" CAPABILITY "\"]}";
}

SUPERVM_EXPORT DEFAULT void plugin_free_string(char *text)
{
    (void)text;
}

SUPERVM_EXPORT DEFAULT int plugin_init(void *vtable)
{
    return good_init(vtable);
}

SUPERVM_EXPORT DEFAULT int plugin_start(void)
{
    int status = publish_chain(10);
    done();
    return status;
}

SUPERVM_EXPORT DEFAULT int plugin_stop(void)
{
    atomic_store(&stopping, 1);
    return 0;
}
