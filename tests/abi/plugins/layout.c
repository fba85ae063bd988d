/* Prints what every released header fixes: constants, sizes and offsets. */
#include <stdio.h>

#include "supervm/supervm.h"

#define NUMBER(name) printf(#name " %lld\n", (long long)(name))
#define FIELD(type, field) printf(#type "." #field " %zu %zu\n", offsetof(struct type, field), sizeof(((struct type *)0)->field))
#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))

int main(void)
{
    NUMBER(SUPERVM_ABI_MAJOR);
    NUMBER(SUPERVM_OK);
    NUMBER(SUPERVM_INVALID_ARGUMENT);
    NUMBER(SUPERVM_NOT_GRANTED);
    NUMBER(SUPERVM_TOO_LARGE);
    NUMBER(SUPERVM_QUEUE_FULL);
    NUMBER(SUPERVM_NO_ROUTE);
    NUMBER(SUPERVM_STOPPING);
    NUMBER(SUPERVM_WOULD_BLOCK);
    NUMBER(SUPERVM_BUSY);
    NUMBER(SUPERVM_NOT_FOUND);
    NUMBER(SUPERVM_WRONG_STATE);
    NUMBER(SUPERVM_NO_MEMORY);
    NUMBER(SUPERVM_LOG_TRACE);
    NUMBER(SUPERVM_LOG_ERROR);
    NUMBER(SUPERVM_MAX_LOG_BYTES);
    NUMBER(SUPERVM_MAX_METRIC_NAME_BYTES);
    NUMBER(SUPERVM_MAX_HASH_BYTES);
    NUMBER(SUPERVM_MAX_POSITION_BYTES);
    NUMBER(SUPERVM_WEIGHT_BYTES);
    NUMBER(SUPERVM_HEIGHT_UNKNOWN);
    NUMBER(SUPERVM_TIME_UNKNOWN);
    puts(SUPERVM_BLOCK_SINK_1 " " SUPERVM_CONFIG_1 " " SUPERVM_HEARTBEAT_1 " " SUPERVM_RESUME_1);

    FIELD(supervm_host_vtable, host_log);
    FIELD(supervm_host_vtable, host_submit_tx);
    FIELD(supervm_host_vtable, host_report_metric);
    FIELD(supervm_host_vtable, host_request_shutdown);
    FIELD(supervm_host_vtable, abi_major);
    FIELD(supervm_host_vtable, abi_minor);
    FIELD(supervm_host_vtable, struct_size);
    FIELD(supervm_host_vtable, host_get_extension);

    SIZE(supervm_block_1);
    FIELD(supervm_block_1, struct_size);
    FIELD(supervm_block_1, flags);
    FIELD(supervm_block_1, height);
    FIELD(supervm_block_1, final_height);
    FIELD(supervm_block_1, time);
    FIELD(supervm_block_1, hash);
    FIELD(supervm_block_1, parent);
    FIELD(supervm_block_1, weight);
    FIELD(supervm_block_1, position);
    FIELD(supervm_block_1, payload);
    FIELD(supervm_block_1, hash_length);
    FIELD(supervm_block_1, parent_length);
    FIELD(supervm_block_1, position_length);
    FIELD(supervm_block_1, payload_length);

    SIZE(supervm_reorg_1);
    FIELD(supervm_reorg_1, orphan_length);
    FIELD(supervm_reorg_1, from_height);
    FIELD(supervm_reorg_1, to_height);
    FIELD(supervm_reorg_1, orphans);
    FIELD(supervm_reorg_1, orphan_count);
    FIELD(supervm_reorg_1, position);
    FIELD(supervm_reorg_1, position_length);

    SIZE(supervm_block_sink_1);
    FIELD(supervm_block_sink_1, max_payload);
    FIELD(supervm_block_sink_1, host);
    FIELD(supervm_block_sink_1, publish);
    FIELD(supervm_block_sink_1, try_publish);
    FIELD(supervm_block_sink_1, reserve);
    FIELD(supervm_block_sink_1, try_reserve);
    FIELD(supervm_block_sink_1, commit);
    FIELD(supervm_block_sink_1, abandon);
    FIELD(supervm_block_sink_1, publish_release);
    FIELD(supervm_block_sink_1, reorg);
    FIELD(supervm_block_sink_1, finalized);
    FIELD(supervm_block_sink_1, end_of_input);

    SIZE(supervm_config_1);
    FIELD(supervm_config_1, host);
    FIELD(supervm_config_1, get);
    SIZE(supervm_heartbeat_1);
    FIELD(supervm_heartbeat_1, interval_ms);
    FIELD(supervm_heartbeat_1, host);
    FIELD(supervm_heartbeat_1, beat);
    SIZE(supervm_resume_1);
    FIELD(supervm_resume_1, host);
    FIELD(supervm_resume_1, position);
    return 0;
}
