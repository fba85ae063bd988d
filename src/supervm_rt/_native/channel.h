/* The host's end of one plugin: both rings, and the event that it sleeps on. One thread at a time may be in here. */
#ifndef SUPERVM_NATIVE_CHANNEL_H
#define SUPERVM_NATIVE_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "reader.h"
#include "side_ring.h"

struct channel {
    struct reader *reader;
    struct side_ring side;
    int event_fd;
};

/* Fresh rings. Without a releaser they are shared with another process, and their memfds stay open. 0, or an errno: ENOMEM,
 * EINVAL (sizes), EMFILE; then there is nothing to destroy. */
int channel_create(struct channel *channel, uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation,
                   struct releaser *releaser);
/* Frames that still live keep what they need. */
void channel_destroy(struct channel *channel);

/* The child has its copies of the memfds: closes the host's. */
void channel_close_fds(struct channel *channel);

/* Ends all waits of the plugin's side, now and later. */
void channel_begin_stop(struct channel *channel);

/* Tells a sleeping host that something happened. Any thread. */
void channel_notify(struct channel *channel);
/* Announces a sleep. false: there is something to do, and nothing was announced. */
bool channel_prepare_wait(struct channel *channel);
void channel_finish_wait(struct channel *channel);

/* CLOCK_MONOTONIC nanoseconds, as the plugin's side claims; now, while a thread waits inside the sink. */
int64_t channel_last_sign(const struct channel *channel);

static inline struct plugin_words *channel_words(const struct channel *channel)
{
    return &channel->reader->ring.producer->words;
}

#endif
