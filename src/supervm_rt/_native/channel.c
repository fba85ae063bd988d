#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int channel_create(struct channel *channel, uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation,
                   struct releaser *releaser)
{
    memset(channel, 0, sizeof *channel);
    channel->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (channel->event_fd < 0)
        return errno;
    channel->reader = reader_create(ring_bytes, generation, channel->event_fd, releaser);
    int error = channel->reader ? side_ring_create(&channel->side, side_ring_bytes, &channel->reader->bell) : errno;
    if (error)
        channel_destroy(channel);
    else if (releaser)
        ring_close_fds(&channel->side.ring);
    return error;
}

void channel_destroy(struct channel *channel)
{
    side_ring_destroy(&channel->side);
    if (channel->reader) {
        ring_close_fds(&channel->reader->ring);
        reader_unref(channel->reader);
    }
    channel->reader = NULL;
    close(channel->event_fd);
    channel->event_fd = -1;
}

void channel_close_fds(struct channel *channel)
{
    ring_close_fds(&channel->reader->ring);
    ring_close_fds(&channel->side.ring);
}

void channel_begin_stop(struct channel *channel)
{
    ring_stop(&channel->reader->ring);
}

void channel_notify(struct channel *channel)
{
    atomic_store_explicit(&channel_words(channel)->notice, 1, memory_order_release);
    doorbell_ring_fenced(&channel->reader->bell);
}

bool channel_prepare_wait(struct channel *channel)
{
    uint64_t side_head;
    if (!reader_prepare_wait(channel->reader))
        return false;
    bool side_work = !ring_look(&channel->side.ring, &side_head) || side_head != channel->side.ring.read_position;
    if (atomic_exchange_explicit(&channel_words(channel)->notice, 0, memory_order_acquire) == 0 && !side_work)
        return true;
    doorbell_retract(&channel->reader->bell);
    return false;
}

void channel_finish_wait(struct channel *channel)
{
    if (doorbell_announced(&channel->reader->bell))
        doorbell_retract(&channel->reader->bell);
    doorbell_empty(&channel->reader->bell);
}

int64_t channel_last_sign(const struct channel *channel)
{
    const struct ring_producer_page *plugin = channel->reader->ring.producer;
    if (atomic_load_explicit(&plugin->waiting, memory_order_relaxed) ||
        atomic_load_explicit(&plugin->words.lock_waiters, memory_order_relaxed))
        return clock_now();
    return atomic_load_explicit(&plugin->words.last_sign, memory_order_relaxed);
}
