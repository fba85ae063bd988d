/* supervm.block_sink/1. */
#include <stdlib.h>
#include <string.h>

#include "slot.h"

uint64_t sink_max_payload(const struct slot *slot)
{
    return slot->ring->capacity - RECORD_OVERHEAD;
}

static bool is_buffer(const uint8_t *bytes, uint64_t length, uint64_t limit)
{
    return length <= limit && (bytes || length == 0);
}

/* Everything but the payload. */
static bool block_is_sound(const struct supervm_block_1 *block)
{
    return block && block->struct_size >= sizeof *block && block->flags == 0 && block->reserved == 0 &&
           is_buffer(block->hash, block->hash_length, SUPERVM_MAX_HASH_BYTES) &&
           is_buffer(block->parent, block->parent_length, SUPERVM_MAX_HASH_BYTES) &&
           is_buffer(block->position, block->position_length, SUPERVM_MAX_POSITION_BYTES);
}

static struct record_header block_header(const struct supervm_block_1 *block)
{
    return (struct record_header){
        .payload_length = block->payload_length,
        .height = block->height,
        .final_height = block->final_height,
        .time = block->time,
        .kind = RECORD_BLOCK,
        .hash_length = (uint8_t)block->hash_length,
        .parent_length = (uint8_t)block->parent_length,
        .weight_length = block->weight ? SUPERVM_WEIGHT_BYTES : 0,
        .position_length = (uint16_t)block->position_length,
    };
}

static uint64_t set_total_length(struct record_header *header)
{
    header->total_length = ring_round(sizeof *header + record_stored_length(header) + record_tails_length(header));
    return header->total_length;
}

static uint8_t *append(uint8_t *place, const uint8_t *bytes, uint64_t length)
{
    if (length == 32) /* What most ids are. */
        memcpy(place, bytes, 32);
    else if (length)
        memmove(place, bytes, length); /* Not memcpy: gcc inlines that for short lengths, into something far slower. */
    return place + length;
}

/* Writes all but the payload. */
static void write_block(uint8_t *record, const struct record_header *header, const struct supervm_block_1 *block)
{
    memcpy(record, header, sizeof *header);
    uint8_t *place = record + sizeof *header + record_stored_length(header);
    place = append(place, block->hash, header->hash_length);
    place = append(place, block->parent, header->parent_length);
    place = append(place, block->weight, header->weight_length);
    append(place, block->position, header->position_length);
}

/* Finds the slot, and takes its lock. */
static int32_t enter(void *host, bool wait, struct slot **found)
{
    struct slot *slot = slot_of_host(host);
    if (!slot)
        return SUPERVM_INVALID_ARGUMENT;
    uint32_t grants = slot_grants(slot);
    if (!(grants & SLOT_OPEN))
        return SUPERVM_STOPPING;
    if (!(grants & SLOT_BLOCK_STREAM))
        return SUPERVM_NOT_GRANTED;
    *found = slot;
    if (ring_stopped(slot->ring))
        return SUPERVM_STOPPING;
    return owner_lock_take(&slot->lock, wait, &slot->ring->host->stop);
}

/* Gives the lock back, then wakes whoever waits for it or for what was published. */
static int32_t leave(struct slot *slot, int32_t status)
{
    owner_lock_give(&slot->lock);
    atomic_thread_fence(memory_order_seq_cst);
    owner_lock_notify(&slot->lock);
    doorbell_ring(&slot->bell);
    return status;
}

static int32_t claim(struct slot *slot, uint64_t length, bool wait, uint8_t **record)
{
    return ring_claim(slot->ring, length, wait, &slot->bell, record);
}

static void publish_record(struct slot *slot, uint64_t length)
{
    ring_publish(slot->ring, length);
    slot_sign_of_life(slot);
}

static int32_t publish_block(void *host, const struct supervm_block_1 *block, bool wait)
{
    struct slot *slot;
    if (!block_is_sound(block) || (!block->payload && block->payload_length))
        return SUPERVM_INVALID_ARGUMENT;
    int32_t status = enter(host, wait, &slot);
    if (status != SUPERVM_OK)
        return status;
    if (block->payload_length > sink_max_payload(slot))
        return leave(slot, SUPERVM_TOO_LARGE);
    struct record_header header = block_header(block);
    uint64_t length = set_total_length(&header);
    uint8_t *record;
    status = claim(slot, length, wait, &record);
    if (status != SUPERVM_OK)
        return leave(slot, status);
    append(record + sizeof header, block->payload, header.payload_length);
    write_block(record, &header, block);
    publish_record(slot, length);
    return leave(slot, SUPERVM_OK);
}

static int32_t sink_publish(void *host, const struct supervm_block_1 *block)
{
    return publish_block(host, block, true);
}

static int32_t sink_try_publish(void *host, const struct supervm_block_1 *block)
{
    return publish_block(host, block, false);
}

static int32_t reserve(void *host, uint64_t payload_length, uint8_t **payload, bool wait)
{
    struct slot *slot;
    if (!payload)
        return SUPERVM_INVALID_ARGUMENT;
    int32_t status = enter(host, wait, &slot);
    if (status != SUPERVM_OK)
        return status;
    if (payload_length > sink_max_payload(slot))
        return leave(slot, SUPERVM_TOO_LARGE);
    uint8_t *record;
    status = claim(slot, ring_round(payload_length + RECORD_OVERHEAD), wait, &record);
    if (status != SUPERVM_OK)
        return leave(slot, status);
    slot->reserved_payload = payload_length;
    slot->reserved_record = record;
    slot->reserved = true;
    *payload = record + sizeof(struct record_header);
    return SUPERVM_OK; /* The lock stays with this thread. */
}

static int32_t sink_reserve(void *host, uint64_t payload_length, uint8_t **payload)
{
    return reserve(host, payload_length, payload, true);
}

static int32_t sink_try_reserve(void *host, uint64_t payload_length, uint8_t **payload)
{
    return reserve(host, payload_length, payload, false);
}

/* Takes the calling thread's reservation away from it; the thread still holds the lock. */
static int32_t take_reservation(void *host, struct slot **found)
{
    struct slot *slot = slot_of_host(host);
    if (!slot)
        return SUPERVM_INVALID_ARGUMENT;
    if (!owner_lock_is_mine(&slot->lock))
        return SUPERVM_WRONG_STATE;
    if (!slot->reserved)
        return SUPERVM_BUSY;
    slot->reserved = false;
    *found = slot;
    return SUPERVM_OK;
}

/* Ends the reservation, whatever it answers. */
static int32_t sink_commit(void *host, const struct supervm_block_1 *block)
{
    struct slot *slot;
    int32_t status = take_reservation(host, &slot);
    if (status != SUPERVM_OK)
        return status;
    if (ring_stopped(slot->ring))
        return leave(slot, SUPERVM_STOPPING);
    if (!block_is_sound(block) || block->payload_length > slot->reserved_payload)
        return leave(slot, SUPERVM_INVALID_ARGUMENT);
    struct record_header header = block_header(block);
    uint64_t length = set_total_length(&header);
    write_block(slot->reserved_record, &header, block);
    publish_record(slot, length);
    return leave(slot, SUPERVM_OK);
}

static int32_t sink_abandon(void *host)
{
    struct slot *slot;
    int32_t status = take_reservation(host, &slot);
    return status == SUPERVM_OK ? leave(slot, SUPERVM_OK) : status;
}

static int32_t publish_external(void *host, const struct supervm_block_1 *block, void (*release)(void *), void *argument)
{
    struct slot *slot;
    if (!block_is_sound(block) || !is_buffer(block->payload, block->payload_length, INT64_MAX))
        return SUPERVM_INVALID_ARGUMENT;
    int32_t status = enter(host, true, &slot);
    if (status != SUPERVM_OK)
        return status;
    struct external *external = malloc(sizeof *external);
    if (!external || releaser_start(slot->releaser) != 0) {
        free(external);
        return leave(slot, SUPERVM_NO_MEMORY);
    }
    *external = (struct external){
        .payload = block->payload, .length = block->payload_length, .release = release, .argument = argument};
    struct record_header header = block_header(block);
    header.flags |= RECORD_EXTERNAL;
    uint64_t length = set_total_length(&header);
    uint8_t *record;
    status = claim(slot, length, true, &record);
    if (status != SUPERVM_OK) {
        free(external);
        return leave(slot, status);
    }
    memcpy(record + sizeof header, &external, sizeof external);
    write_block(record, &header, block);
    publish_record(slot, length);
    return leave(slot, SUPERVM_OK);
}

static int32_t sink_publish_release(void *host, const struct supervm_block_1 *block, void (*release)(void *), void *argument)
{
    if (!release)
        return SUPERVM_INVALID_ARGUMENT;
    const struct slot *slot = slot_of_host(host);
    bool copies = slot && !slot->releaser;
    int32_t status = copies ? sink_publish(host, block) : publish_external(host, block, release, argument);
    if (copies || status != SUPERVM_OK)
        release(argument);
    return status;
}

static int32_t sink_reorg(void *host, const struct supervm_reorg_1 *reorg)
{
    struct slot *slot;
    if (!reorg || reorg->struct_size < sizeof *reorg || reorg->reserved != 0 || reorg->orphan_length > SUPERVM_MAX_HASH_BYTES ||
        reorg->from_height < reorg->to_height || reorg->from_height == SUPERVM_HEIGHT_UNKNOWN ||
        !is_buffer(reorg->position, reorg->position_length, SUPERVM_MAX_POSITION_BYTES) ||
        (reorg->orphan_count != 0 && (!reorg->orphans || reorg->orphan_length == 0)))
        return SUPERVM_INVALID_ARGUMENT;
    int32_t status = enter(host, true, &slot);
    if (status != SUPERVM_OK)
        return status;
    if (reorg->orphan_count != 0 && reorg->orphan_count > sink_max_payload(slot) / reorg->orphan_length)
        return leave(slot, SUPERVM_TOO_LARGE);
    struct record_header header = {
        .payload_length = reorg->orphan_count * reorg->orphan_length,
        .height = reorg->from_height,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .to_height = reorg->to_height,
        .kind = RECORD_REORG,
        .item_length = (uint8_t)reorg->orphan_length,
        .position_length = (uint16_t)reorg->position_length,
    };
    uint64_t length = set_total_length(&header);
    uint8_t *record;
    status = claim(slot, length, true, &record);
    if (status != SUPERVM_OK)
        return leave(slot, status);
    memcpy(record, &header, sizeof header);
    uint8_t *place = append(record + sizeof header, reorg->orphans, header.payload_length);
    append(place, reorg->position, header.position_length);
    publish_record(slot, length);
    return leave(slot, SUPERVM_OK);
}

/* A record without a payload. */
static int32_t say(void *host, uint16_t kind, const uint8_t *hash, uint32_t hash_length, uint64_t height)
{
    struct slot *slot;
    int32_t status = enter(host, true, &slot);
    if (status != SUPERVM_OK)
        return status;
    struct record_header header = {
        .height = height,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .kind = kind,
        .hash_length = (uint8_t)hash_length,
    };
    uint64_t length = set_total_length(&header);
    uint8_t *record;
    status = claim(slot, length, true, &record);
    if (status != SUPERVM_OK)
        return leave(slot, status);
    memcpy(record, &header, sizeof header);
    append(record + sizeof header, hash, hash_length);
    publish_record(slot, length);
    return leave(slot, SUPERVM_OK);
}

static int32_t sink_finalized(void *host, const uint8_t *hash, uint32_t hash_length, uint64_t height)
{
    if (!is_buffer(hash, hash_length, SUPERVM_MAX_HASH_BYTES) || (hash_length == 0 && height == SUPERVM_HEIGHT_UNKNOWN))
        return SUPERVM_INVALID_ARGUMENT;
    return say(host, RECORD_FINALIZED, hash, hash_length, height);
}

static int32_t sink_end_of_input(void *host)
{
    return say(host, RECORD_END_OF_INPUT, NULL, 0, SUPERVM_HEIGHT_UNKNOWN);
}

void sink_fill(struct slot *slot)
{
    slot->block_sink = (struct supervm_block_sink_1){
        .struct_size = sizeof slot->block_sink,
        .max_payload = sink_max_payload(slot),
        .host = slot,
        .publish = sink_publish,
        .try_publish = sink_try_publish,
        .reserve = sink_reserve,
        .try_reserve = sink_try_reserve,
        .commit = sink_commit,
        .abandon = sink_abandon,
        .publish_release = sink_publish_release,
        .reorg = sink_reorg,
        .finalized = sink_finalized,
        .end_of_input = sink_end_of_input,
    };
}
