/* BlockMessage of proto/plugin_host.proto as a subscriber is sent it, written. Knows nothing of Python.
 *
 * Lengths are worked out first, so that all of a message goes into one place of just its size. The block itself may be left out of it:
 * what is written are the head, which ends where the block begins, and the tail behind it. Fields come in the order of their numbers,
 * as Google's protobuf writes them.
 */
#ifndef SUPERVM_REMOTE_EVENT_H
#define SUPERVM_REMOTE_EVENT_H

#include <stdint.h>

#include "message.h"

enum event_step { EVENT_NEW = 0, EVENT_UNDO = 1, EVENT_FINAL = 2 };

/* What is empty or 0 is not written. */
struct event {
    struct span chain;
    uint64_t height;
    struct span payload;
    struct span json;
    int64_t seconds; /* Since the epoch; the timestamp is written also where it is 0. */
    struct span hash;
    struct span parent;
    enum event_step step;
    struct span cursor;
    struct span ir;
    size_t head; /* Bytes before the payload, its own key and length among them; set by event_measure. */
    size_t tail; /* Bytes behind it; likewise. */
};

#define EVENT_PREFIX_BYTES 5 /* Of a gRPC message. */

/* Sets head and tail. Returns the length of the message: head, payload and tail. */
size_t event_measure(struct event *event);

/* Write exactly so many bytes as was measured; return where they end. */
uint8_t *event_write_head(const struct event *event, uint8_t *to);
uint8_t *event_write_tail(const struct event *event, uint8_t *to);

/* What goes before a gRPC message of less than 4 GiB: EVENT_PREFIX_BYTES. Returns where it ends. */
uint8_t *event_write_prefix(uint8_t *to, size_t length);

/* A message that is a batch: what goes before its items, which have so many bytes with what goes before each. */
size_t event_batch_head(size_t items);
uint8_t *event_write_batch_head(uint8_t *to, size_t items);

/* What goes before one message of a batch. */
size_t event_item_head(size_t length);
uint8_t *event_write_item_head(uint8_t *to, size_t length);

#endif
