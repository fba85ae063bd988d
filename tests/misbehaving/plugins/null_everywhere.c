/* Gives NULL for every pointer of every function. The host answers INVALID_ARGUMENT or does nothing, as its headers say. */
#include "good.h"

static void release(void *argument) { ++*(int *)argument; }

SUPERVM_EXPORT int plugin_start(void)
{
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const struct supervm_resume_1 *resume = host->host_get_extension(SUPERVM_RESUME_1);
    const struct supervm_heartbeat_1 *heartbeat = host->host_get_extension(SUPERVM_HEARTBEAT_1);
    const char *json;
    const uint8_t *bytes;
    uint64_t length;
    uint8_t *place;
    int released = 0;

    host->host_log(SUPERVM_LOG_ERROR, NULL);
    EXPECT(host->host_submit_tx(NULL, NULL, 0) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(host->host_submit_tx("dev", NULL, 5) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(host->host_report_metric(NULL, 1.0) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(host->host_get_extension(NULL) == NULL);

    EXPECT(config->get(NULL, &json, &length) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(config->get(config->host, NULL, &length) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(config->get(config->host, &json, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(resume->position(NULL, &bytes, &length) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(resume->position(resume->host, NULL, &length) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(resume->position(resume->host, &bytes, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(heartbeat->beat(NULL) == SUPERVM_INVALID_ARGUMENT);

    struct supervm_block_1 block = dev_block(1, 0);
    EXPECT(sink->publish(sink->host, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish(NULL, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->try_publish(sink->host, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->try_publish(NULL, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->reserve(sink->host, 8, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->reserve(NULL, 8, &place) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->try_reserve(sink->host, 8, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->try_reserve(NULL, 8, &place) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->commit(NULL, &block) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->abandon(NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->reserve(sink->host, 8, &place) == SUPERVM_OK);
    EXPECT(sink->commit(sink->host, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish_release(sink->host, &block, NULL, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->publish_release(sink->host, NULL, release, &released) == SUPERVM_INVALID_ARGUMENT && released == 1);
    EXPECT(sink->publish_release(NULL, &block, release, &released) == SUPERVM_INVALID_ARGUMENT && released == 2);
    EXPECT(sink->reorg(sink->host, NULL) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->reorg(NULL, &(struct supervm_reorg_1){.struct_size = sizeof(struct supervm_reorg_1)}) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->finalized(sink->host, NULL, 32, 1) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->finalized(NULL, block.hash, 32, 1) == SUPERVM_INVALID_ARGUMENT);
    EXPECT(sink->end_of_input(NULL) == SUPERVM_INVALID_ARGUMENT);

    /* Each pointer of a block without its bytes. */
    const uint8_t **pointers[] = {&block.hash, &block.parent, &block.position, &block.payload};
    for (size_t each = 0; each < sizeof pointers / sizeof *pointers; each++) {
        const uint8_t *kept = *pointers[each];
        *pointers[each] = NULL;
        EXPECT(sink->publish(sink->host, &block) == SUPERVM_INVALID_ARGUMENT);
        *pointers[each] = kept;
    }
    EXPECT(sink->reorg(sink->host, &(struct supervm_reorg_1){.struct_size = sizeof(struct supervm_reorg_1), .orphan_length = 32,
        .from_height = 2, .to_height = 1, .orphan_count = 1}) == SUPERVM_INVALID_ARGUMENT);
    done();
    return 0;
}
