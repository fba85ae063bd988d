/* A plugin that tells the host what a file says, from the position on that the host has committed. The file is written by
 * fuzz/reorgs/telling.py: the length of a position and the position at which the file begins, then records. CHAIN is given by the
 * compiler's command line. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <supervm/supervm.h>

enum { BLOCK = 1, REORG, FINALIZED };

struct record {
    uint8_t kind, hash_length, parent_length, position_length, weight_length, unused[3];
    uint32_t payload_length, orphan_count;
    uint64_t height, other; /* other: final_height, or to_height. */
    int64_t time;
    /* Then hash, parent, weight, position, payload; of a reorg the payload is the orphans. */
};

static const struct supervm_host_vtable *host;
static const struct supervm_block_sink_1 *sink;
static pthread_t thread;
static int has_thread;

static uint64_t length_of(const struct record *record)
{
    return sizeof *record + record->hash_length + record->parent_length + record->weight_length + record->position_length +
           record->payload_length;
}

static const uint8_t *position_of(const struct record *record, const uint8_t *at)
{
    return at + sizeof *record + record->hash_length + record->parent_length + record->weight_length;
}

static int32_t tell(const struct record *record, const uint8_t *at)
{
    const uint8_t *hash = at + sizeof *record, *parent = hash + record->hash_length, *weight = parent + record->parent_length;
    const uint8_t *position = weight + record->weight_length, *payload = position + record->position_length;
    if (record->kind == BLOCK) {
        struct supervm_block_1 block = {.struct_size = sizeof block, .height = record->height, .final_height = record->other,
            .time = record->time, .hash = hash, .hash_length = record->hash_length, .parent = parent,
            .parent_length = record->parent_length, .weight = record->weight_length ? weight : NULL, .position = position,
            .position_length = record->position_length, .payload = payload, .payload_length = record->payload_length};
        return sink->publish(sink->host, &block);
    }
    if (record->kind == REORG) {
        struct supervm_reorg_1 reorg = {.struct_size = sizeof reorg, .from_height = record->height, .to_height = record->other,
            .orphans = payload, .orphan_count = record->orphan_count, .position = position,
            .position_length = record->position_length};
        if (record->orphan_count)
            reorg.orphan_length = record->payload_length / record->orphan_count;
        return sink->reorg(sink->host, &reorg);
    }
    return sink->finalized(sink->host, hash, record->hash_length, record->height);
}

static void *give_up(const char *why)
{
    host->host_log(SUPERVM_LOG_ERROR, why);
    host->host_request_shutdown(1);
    return NULL;
}

/* Behind the record with the host's position; NULL where the file has no such place. */
static const uint8_t *place_of(const uint8_t *begin, const uint8_t *end, const uint8_t *kept, uint64_t kept_length)
{
    const uint8_t *at = begin + 1 + begin[0];
    if (kept_length == begin[0] && memcmp(kept, begin + 1, kept_length) == 0)
        return at;
    while (at < end) {
        struct record record;
        memcpy(&record, at, sizeof record);
        const uint8_t *position = position_of(&record, at);
        at += length_of(&record);
        if (kept_length != 0 && record.position_length == kept_length && memcmp(position, kept, kept_length) == 0)
            return at;
    }
    return NULL;
}

static void *tell_all(void *text)
{
    const struct supervm_resume_1 *resume = host->host_get_extension(SUPERVM_RESUME_1);
    const uint8_t *kept = (const uint8_t *)"", *at;
    uint64_t kept_length = 0, length = *(uint64_t *)text;
    const uint8_t *begin = (const uint8_t *)text + sizeof length, *end = begin + length;
    int32_t status = SUPERVM_OK;
    if (resume == NULL)
        return give_up("no place to resume from was granted");
    status = resume->position(resume->host, &kept, &kept_length);
    if (status != SUPERVM_OK && status != SUPERVM_NOT_FOUND)
        return give_up("the position was not told");
    if (status == SUPERVM_NOT_FOUND)
        kept_length = 0;
    at = place_of(begin, end, kept, kept_length);
    if (at == NULL)
        return give_up("the host resumes at a position that this story does not have");
    for (status = SUPERVM_OK; at < end && status == SUPERVM_OK;) {
        struct record record;
        memcpy(&record, at, sizeof record);
        status = tell(&record, at);
        at += length_of(&record);
    }
    if (status == SUPERVM_OK)
        status = sink->end_of_input(sink->host);
    return status == SUPERVM_OK || status == SUPERVM_STOPPING ? NULL : give_up("the host does not take what the story says");
}

/* The file that the setting "story" names, behind its length; NULL where there is none. Its path holds nothing that JSON escapes. */
static void *read_story(void)
{
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const char *json, *path;
    uint64_t length;
    char name[512] = "";
    if (config == NULL || config->get(config->host, &json, &length) != SUPERVM_OK)
        return NULL;
    path = strstr(json, "\"story\"");
    if (path == NULL || sscanf(path, "\"story\" : \"%511[^\"]\"", name) != 1)
        return NULL;
    FILE *file = fopen(name, "rb");
    if (file == NULL)
        return NULL;
    uint8_t *text = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        text = size > 0 ? malloc(sizeof length + (size_t)size) : NULL;
        rewind(file);
        if (text != NULL) {
            length = fread(text + sizeof length, 1, (size_t)size, file);
            memcpy(text, &length, sizeof length);
        }
    }
    fclose(file);
    return text;
}

static void *work(void *unused)
{
    void *text = read_story();
    (void)unused;
    if (text == NULL)
        return give_up("the story cannot be read");
    tell_all(text);
    free(text);
    return NULL;
}

SUPERVM_EXPORT const char *plugin_get_manifest_json(void)
{
    return "{\"id\": \"org.example.teller\", \"name\": \"teller\", \"version\": \"1.0.0\", \"chain\": \"" CHAIN
           "\", \"capabilities\": [\"block_stream\"]}";
}

SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }

SUPERVM_EXPORT int plugin_init(void *vtable)
{
    host = vtable;
    sink = host->host_get_extension(SUPERVM_BLOCK_SINK_1);
    return sink == NULL ? 2 : 0;
}

SUPERVM_EXPORT int plugin_start(void)
{
    has_thread = pthread_create(&thread, NULL, work, NULL) == 0;
    return has_thread ? 0 : 3;
}

SUPERVM_EXPORT int plugin_stop(void)
{
    if (has_thread)
        pthread_join(thread, NULL);
    has_thread = 0;
    return 0;
}
