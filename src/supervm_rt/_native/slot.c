#define _GNU_SOURCE
#include "slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct slot slot_table[SLOT_COUNT];

int slot_number(const struct slot *slot)
{
    return (int)(slot - slot_table);
}

int slot_used_count(void)
{
    int used = 0;
    for (int number = 0; number < SLOT_COUNT; number++)
        used += slot_table[number].used;
    return used;
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
    return ring_stopped(&slot->reader->ring) ? SUPERVM_STOPPING : SUPERVM_OK;
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

struct slot *slot_take(uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, uint32_t heartbeat_interval_ms)
{
    struct slot *slot = NULL;
    for (int number = 0; number < SLOT_COUNT && !slot; number++)
        if (!slot_table[number].used)
            slot = &slot_table[number];
    if (!slot) {
        errno = EUSERS;
        return NULL;
    }
    memset(slot, 0, sizeof *slot);
    slot->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (slot->event_fd < 0)
        return NULL;
    releaser_init(&slot->releaser);
    slot->reader = reader_create(ring_bytes, generation, slot->event_fd, &slot->releaser);
    int error = slot->reader ? side_ring_create(&slot->side, side_ring_bytes, &slot->reader->bell) : errno;
    if (error) {
        slot_give_back(slot);
        errno = error;
        return NULL;
    }
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
    slot_sign_of_life(slot);
    slot->used = true;
    return slot;
}

void slot_give_back(struct slot *slot)
{
    slot_close(slot);
    side_ring_destroy(&slot->side);
    if (slot->reader)
        reader_unref(slot->reader);
    slot->reader = NULL;
    free(slot->configuration);
    free(slot->position);
    slot->configuration = NULL;
    slot->position = NULL;
    close(slot->event_fd);
    slot->event_fd = -1;
    slot->used = false;
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

void slot_begin_stop(struct slot *slot)
{
    ring_stop(&slot->reader->ring);
    owner_lock_interrupt(&slot->lock);
}

void slot_close(struct slot *slot)
{
    atomic_store_explicit(&slot->grants, 0, memory_order_release);
}

void slot_notify(struct slot *slot)
{
    atomic_store_explicit(&slot->notice, 1, memory_order_release);
    doorbell_ring_fenced(&slot->reader->bell);
}

bool slot_prepare_wait(struct slot *slot)
{
    uint64_t side_head;
    if (!reader_prepare_wait(slot->reader))
        return false;
    bool side_work = !ring_look(&slot->side.ring, &side_head) || side_head != slot->side.ring.read_position;
    if (atomic_exchange_explicit(&slot->notice, 0, memory_order_acquire) == 0 && !side_work)
        return true;
    doorbell_retract(&slot->reader->bell);
    return false;
}

void slot_finish_wait(struct slot *slot)
{
    if (doorbell_announced(&slot->reader->bell))
        doorbell_retract(&slot->reader->bell);
    doorbell_empty(&slot->reader->bell);
}

int64_t slot_last_sign(const struct slot *slot)
{
    if (atomic_load_explicit(&slot->reader->ring.producer->waiting, memory_order_relaxed) ||
        atomic_load_explicit(&slot->lock.waiters, memory_order_relaxed))
        return clock_now();
    return atomic_load_explicit(&slot->last_sign, memory_order_relaxed);
}

void slot_sign_of_life(struct slot *slot)
{
    atomic_store_explicit(&slot->last_sign, clock_now_coarse(), memory_order_relaxed);
}

bool slot_sink_is_busy(const struct slot *slot)
{
    return atomic_load(&slot->lock.owner) != 0 || atomic_load(&slot->lock.waiters) != 0;
}
