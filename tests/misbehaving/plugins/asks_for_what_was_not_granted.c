/* Asks for what its plugin.yaml does not name. The host answers NULL and NOT_GRANTED, and the plugin fails of it. */
#include "good.h"

SUPERVM_EXPORT int plugin_start(void)
{
    const char *ids[] = {SUPERVM_BLOCK_SINK_1, SUPERVM_RESUME_1, "supervm.submission/1", "supervm.net/1", "supervm.rpc_pipe/1",
        "supervm.block_sink/2", "supervm.block_sink/", "supervm.block_sink/1 ", "", "com.example.root/1"};
    for (size_t each = 0; each < sizeof ids / sizeof *ids; each++)
        EXPECT(host->host_get_extension(ids[each]) == NULL);
    EXPECT(host->host_submit_tx("dev", (const uint8_t *)"x", 1) == SUPERVM_NOT_GRANTED);
    return 77;
}
