#include "side_ring.h"

#include <sched.h>
#include <string.h>

#include "supervm/status.h"

/* How often another thread's put is waited for. It takes well below a microsecond unless its thread is not running. */
#define LOCK_TRIES 256
#define LOCK_TRIES_BEFORE_YIELD 32

int side_ring_create(struct side_ring *side, uint64_t capacity, const struct doorbell *bell)
{
    memset(side, 0, sizeof *side);
    side->bell = *bell;
    return ring_create(&side->ring, capacity);
}

int side_ring_attach(struct side_ring *side, uint64_t capacity, int producer_fd, int host_fd, const struct doorbell *bell)
{
    memset(side, 0, sizeof *side);
    side->bell = *bell;
    return ring_attach(&side->ring, capacity, producer_fd, host_fd);
}

void side_ring_destroy(struct side_ring *side)
{
    ring_destroy(&side->ring);
}

static int32_t take_lock(struct owner_lock *lock)
{
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        int32_t status = owner_lock_take(lock, false, NULL);
        if (status != SUPERVM_WOULD_BLOCK)
            return status;
        if (tries >= LOCK_TRIES_BEFORE_YIELD)
            sched_yield();
    }
    return SUPERVM_BUSY;
}

int32_t side_ring_put(struct side_ring *side, const struct message_header *header, const void *text, const void *data)
{
    uint64_t length = ring_round(sizeof *header + header->text_length + header->data_length);
    if (length > side->ring.capacity / 2)
        return SUPERVM_TOO_LARGE;
    int32_t status = take_lock(&side->lock);
    if (status != SUPERVM_OK)
        return status;
    uint8_t *record;
    status = ring_claim(&side->ring, length, false, &side->bell, &record);
    if (status == SUPERVM_OK) {
        struct message_header full = *header;
        full.total_length = length;
        memcpy(record, &full, sizeof full);
        if (header->text_length)
            memcpy(record + sizeof full, text, header->text_length);
        if (header->data_length)
            memcpy(record + sizeof full + header->text_length, data, header->data_length);
        ring_publish(&side->ring, length);
    }
    owner_lock_give(&side->lock);
    doorbell_ring_fenced(&side->bell);
    return status == SUPERVM_WOULD_BLOCK ? SUPERVM_QUEUE_FULL : status;
}

int side_ring_next(struct side_ring *side, struct message_header *header, const uint8_t **text, const uint8_t **data)
{
    uint64_t head;
    if (!ring_look(&side->ring, &head))
        return -1;
    uint64_t available = head - side->ring.read_position;
    if (available == 0)
        return 0;
    const uint8_t *record = ring_at(&side->ring, side->ring.read_position);
    memcpy(header, record, sizeof *header);
    ring_snapshot();
    if (header->total_length > available || header->total_length < sizeof *header ||
        header->total_length % RING_ALIGNMENT != 0 || header->kind < MESSAGE_LOG || header->kind > MESSAGE_TRANSACTION)
        return -1;
    uint64_t room = header->total_length - sizeof *header;
    if (header->text_length > room || header->data_length > room - header->text_length)
        return -1;
    *text = record + sizeof *header;
    *data = *text + header->text_length;
    return 1;
}

void side_ring_done(struct side_ring *side, const struct message_header *header)
{
    side->ring.read_position += header->total_length;
    side->messages++;
    ring_free(&side->ring, side->ring.read_position);
}
