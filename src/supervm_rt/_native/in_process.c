#include "in_process.h"

#include <errno.h>
#include <string.h>

/* The host's part of each slot. */
static struct {
    struct channel channel;
    struct releaser releaser;
} host_parts[SLOT_COUNT];

int slot_used_count(void)
{
    int used = 0;
    for (int number = 0; number < SLOT_COUNT; number++)
        used += slot_table[number].used;
    return used;
}

struct slot *slot_take(uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, uint32_t heartbeat_interval_ms)
{
    int number = 0;
    while (number < SLOT_COUNT && slot_table[number].used)
        number++;
    if (number == SLOT_COUNT) {
        errno = EUSERS;
        return NULL;
    }
    struct slot *slot = &slot_table[number];
    struct channel *channel = &host_parts[number].channel;
    struct releaser *releaser = &host_parts[number].releaser;
    memset(slot, 0, sizeof *slot);
    releaser_init(releaser);
    int error = channel_create(channel, ring_bytes, side_ring_bytes, generation, releaser);
    if (error) {
        errno = error;
        return NULL;
    }
    slot->channel = channel;
    slot->releaser = releaser;
    slot_prepare(slot, &channel->reader->ring, &channel->side, channel->event_fd, heartbeat_interval_ms);
    slot->used = true;
    return slot;
}

void slot_give_back(struct slot *slot)
{
    slot_close(slot);
    channel_destroy(slot->channel);
    slot_forget(slot);
    slot->used = false;
}

void slot_begin_stop(struct slot *slot)
{
    ring_stop(&slot->channel->reader->ring);
    owner_lock_interrupt(&slot->lock);
}
