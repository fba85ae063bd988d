/* What the vtable's functions do, once it is known which slot was called. Nothing here waits. */
#define _GNU_SOURCE
#include <string.h>

#include "slot.h"

/* Shortens text to at most limit bytes without cutting a UTF-8 character in two. */
static uint32_t cut(const char *text, uint32_t limit)
{
    uint32_t length = (uint32_t)strnlen(text, limit + 1u);
    if (length <= limit)
        return length;
    length = limit;
    for (int back = 0; back < 3 && ((uint8_t)text[length] & 0xc0) == 0x80; back++)
        length--;
    return length;
}

static bool is_stopping(const struct slot *slot, uint32_t grants)
{
    return !(grants & SLOT_OPEN) || ring_stopped(slot->ring);
}

static int32_t put_lossy(struct slot *slot, const struct message_header *header, const char *text)
{
    int32_t status = side_ring_put(slot->side, header, text, NULL);
    if (status != SUPERVM_OK)
        atomic_fetch_add_explicit(&slot->ring->producer->words.dropped_messages, 1, memory_order_relaxed);
    return status;
}

void slot_log(struct slot *slot, int level, const char *text)
{
    if (!text || !(slot_grants(slot) & SLOT_OPEN))
        return;
    if (level < SUPERVM_LOG_TRACE)
        level = SUPERVM_LOG_TRACE;
    if (level > SUPERVM_LOG_ERROR)
        level = SUPERVM_LOG_ERROR;
    struct message_header header = {.kind = MESSAGE_LOG, .level = level, .text_length = cut(text, SUPERVM_MAX_LOG_BYTES)};
    put_lossy(slot, &header, text);
}

int slot_report_metric(struct slot *slot, const char *name, double value)
{
    if (!(slot_grants(slot) & SLOT_OPEN))
        return SUPERVM_STOPPING;
    if (!name || !*name)
        return SUPERVM_INVALID_ARGUMENT;
    struct message_header header = {
        .kind = MESSAGE_METRIC, .value = value, .text_length = cut(name, SUPERVM_MAX_METRIC_NAME_BYTES)};
    return put_lossy(slot, &header, name);
}

int slot_submit_tx(struct slot *slot, const char *chain, const uint8_t *bytes, size_t length)
{
    uint32_t grants = slot_grants(slot);
    if (is_stopping(slot, grants))
        return SUPERVM_STOPPING;
    if (!chain || !bytes || length == 0)
        return SUPERVM_INVALID_ARGUMENT;
    size_t chain_length = strnlen(chain, SLOT_MAX_CHAIN_BYTES + 1u);
    if (chain_length == 0 || chain_length > SLOT_MAX_CHAIN_BYTES)
        return SUPERVM_INVALID_ARGUMENT;
    if (!(grants & SLOT_SUBMIT_TX))
        return SUPERVM_NOT_GRANTED;
    if (length > SLOT_MAX_TRANSACTION_BYTES)
        return SUPERVM_TOO_LARGE;
    if (!atomic_load_explicit(&slot->ring->host->route, memory_order_relaxed))
        return SUPERVM_NO_ROUTE;
    struct message_header header = {.kind = MESSAGE_TRANSACTION, .text_length = (uint32_t)chain_length, .data_length = length};
    return side_ring_put(slot->side, &header, chain, bytes);
}

int slot_request_shutdown(struct slot *slot, int reason)
{
    /* A forked child's words are its parent's. */
    if (is_stopping(slot, slot_grants(slot)) || !ring_is_mine(slot->ring))
        return SUPERVM_STOPPING;
    uint64_t not_asked = 0; /* The first reason stays. */
    struct plugin_words *words = &slot->ring->producer->words;
    atomic_compare_exchange_strong(&words->shutdown, &not_asked, PLUGIN_SHUTDOWN_ASKED | (uint32_t)reason);
    atomic_store_explicit(&words->notice, 1, memory_order_release);
    doorbell_ring_fenced(&slot->bell);
    return SUPERVM_OK;
}

const void *slot_get_extension(struct slot *slot, const char *id)
{
    uint32_t grants = slot_grants(slot);
    if (!id || !(grants & SLOT_OPEN))
        return NULL;
    if (strcmp(id, SUPERVM_BLOCK_SINK_1) == 0)
        return (grants & SLOT_BLOCK_STREAM) ? &slot->block_sink : NULL;
    if (strcmp(id, SUPERVM_RESUME_1) == 0)
        return (grants & SLOT_BLOCK_STREAM) ? &slot->resume : NULL;
    if (strcmp(id, SUPERVM_CONFIG_1) == 0)
        return &slot->config;
    if (strcmp(id, SUPERVM_NET_1) == 0)
        return slot->network.socket >= 0 ? &slot->net : NULL;
    if (strcmp(id, SUPERVM_HEARTBEAT_1) == 0) {
        atomic_store_explicit(&slot->ring->producer->words.heartbeat_asked, 1, memory_order_relaxed);
        return &slot->heartbeat;
    }
    return NULL;
}
