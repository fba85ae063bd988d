#define _GNU_SOURCE
#include "slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct slot slot_table[SLOT_COUNT];

int slot_number(const struct slot *slot)
{
    return (int)(slot - slot_table);
}

struct slot *slot_of_host(void *host)
{
    uintptr_t offset = (uintptr_t)host - (uintptr_t)slot_table;
    if (offset >= sizeof slot_table || offset % sizeof *slot_table != 0)
        return NULL;
    return host;
}

static int32_t config_get(void *host, const char **json, uint64_t *length)
{
    struct slot *slot = slot_of_host(host);
    if (!slot || !json || !length)
        return SUPERVM_INVALID_ARGUMENT;
    if (!(slot_grants(slot) & SLOT_OPEN))
        return SUPERVM_STOPPING;
    *json = slot->configuration;
    *length = slot->configuration_length;
    return SUPERVM_OK;
}

static int32_t heartbeat_beat(void *host)
{
    struct slot *slot = slot_of_host(host);
    if (!slot)
        return SUPERVM_INVALID_ARGUMENT;
    if (!(slot_grants(slot) & SLOT_OPEN))
        return SUPERVM_STOPPING;
    slot_sign_of_life(slot);
    return ring_stopped(slot->ring) ? SUPERVM_STOPPING : SUPERVM_OK;
}

static int32_t resume_position(void *host, const uint8_t **position, uint64_t *length)
{
    struct slot *slot = slot_of_host(host);
    if (!slot || !position || !length)
        return SUPERVM_INVALID_ARGUMENT;
    uint32_t grants = slot_grants(slot);
    if (!(grants & SLOT_OPEN))
        return SUPERVM_STOPPING;
    if (!(grants & SLOT_BLOCK_STREAM))
        return SUPERVM_NOT_GRANTED;
    if (!slot->position)
        return SUPERVM_NOT_FOUND;
    *position = slot->position;
    *length = slot->position_length;
    return SUPERVM_OK;
}

void slot_prepare(struct slot *slot, struct ring *ring, struct side_ring *side, int event_fd, uint32_t heartbeat_interval_ms)
{
    slot->ring = ring;
    slot->side = side;
    slot->bell = ring_bell(ring, event_fd);
    slot->lock.shown_waiters = &ring->producer->words.lock_waiters;
    entries_fill(&slot->vtable, slot_number(slot));
    sink_fill(slot);
    slot->config = (struct supervm_config_1){.struct_size = sizeof slot->config, .host = slot, .get = config_get};
    slot->heartbeat = (struct supervm_heartbeat_1){
        .struct_size = sizeof slot->heartbeat,
        .interval_ms = heartbeat_interval_ms,
        .host = slot,
        .beat = heartbeat_beat,
    };
    slot->resume = (struct supervm_resume_1){.struct_size = sizeof slot->resume, .host = slot, .position = resume_position};
    network_prepare(slot);
    slot_sign_of_life(slot);
}

void slot_forget(struct slot *slot)
{
    network_detach(slot);
    free(slot->configuration);
    free(slot->position);
    slot->configuration = NULL;
    slot->position = NULL;
}

static void *copy_of(const void *bytes, uint64_t length)
{
    uint8_t *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, bytes, length);
        copy[length] = 0;
    }
    return copy;
}

int slot_grant(struct slot *slot, uint32_t grants, const char *configuration, uint64_t configuration_length,
               const uint8_t *position, uint64_t position_length)
{
    char *configuration_copy = copy_of(configuration, configuration_length);
    uint8_t *position_copy = position ? copy_of(position, position_length) : NULL;
    if (!configuration_copy || (position && !position_copy)) {
        free(configuration_copy);
        free(position_copy);
        return ENOMEM;
    }
    slot->configuration = configuration_copy;
    slot->configuration_length = configuration_length;
    slot->position = position_copy;
    slot->position_length = position_length;
    atomic_store_explicit(&slot->grants, grants | SLOT_OPEN, memory_order_release);
    return 0;
}

void slot_interrupt(struct slot *slot)
{
    owner_lock_interrupt(&slot->lock);
}

void slot_close(struct slot *slot)
{
    atomic_store_explicit(&slot->grants, 0, memory_order_release);
}

void slot_sign_of_life(struct slot *slot)
{
    atomic_store_explicit(&slot->ring->producer->words.last_sign, clock_now_coarse(), memory_order_relaxed);
}

bool slot_sink_is_busy(const struct slot *slot)
{
    return atomic_load(&slot->lock.owner) != 0 || atomic_load(&slot->lock.waiters) != 0;
}
