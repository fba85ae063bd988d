/* One record of the block ring: this header, the payload at +64, then hash, parent, weight and position without gaps. */
#ifndef SUPERVM_NATIVE_RECORD_H
#define SUPERVM_NATIVE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"
#include "supervm/block_sink.h"

enum record_kind { RECORD_BLOCK = 1, RECORD_REORG = 2, RECORD_FINALIZED = 3, RECORD_END_OF_INPUT = 4 };

/* The payload place holds a pointer to a struct external instead of the payload. */
#define RECORD_EXTERNAL 1u

struct record_header {
    uint64_t total_length;   /* Of the record with this header, a multiple of 64. */
    uint64_t payload_length; /* Bytes. */
    uint64_t height;         /* SUPERVM_HEIGHT_UNKNOWN where not said. RECORD_REORG: from_height. */
    uint64_t final_height;   /* SUPERVM_HEIGHT_UNKNOWN where not said. */
    int64_t time;            /* Nanoseconds since the epoch, or SUPERVM_TIME_UNKNOWN. */
    uint64_t to_height;      /* RECORD_REORG; else 0. */
    uint16_t kind;
    uint16_t flags;
    uint8_t hash_length;
    uint8_t parent_length;
    uint8_t weight_length; /* 0 or SUPERVM_WEIGHT_BYTES. */
    uint8_t item_length;   /* RECORD_REORG: bytes of each id in the payload; else 0. */
    uint16_t position_length;
    uint16_t reserved[3];
};

SUPERVM_ASSERT(sizeof(struct record_header) == RING_ALIGNMENT, "the payload begins at +64");

/* The most that a record needs beside its payload, in whole alignments. */
#define RECORD_OVERHEAD                                                                                                         \
    (sizeof(struct record_header) + 2 * SUPERVM_MAX_HASH_BYTES + SUPERVM_WEIGHT_BYTES + SUPERVM_MAX_POSITION_BYTES + 32)
SUPERVM_ASSERT(RECORD_OVERHEAD % RING_ALIGNMENT == 0, "whole alignments");

/* How many bytes of the record the payload takes. */
static inline uint64_t record_stored_length(const struct record_header *header)
{
    return (header->flags & RECORD_EXTERNAL) ? sizeof(void *) : header->payload_length;
}

static inline uint64_t record_tails_length(const struct record_header *header)
{
    return (uint64_t)header->hash_length + header->parent_length + header->weight_length + header->position_length;
}

/* Whether a copied header can be trusted for a record of which at most available bytes are published. */
static inline bool record_is_sound(const struct record_header *header, uint64_t available)
{
    uint64_t room = header->total_length;
    if (room < sizeof *header || room > available || room % RING_ALIGNMENT != 0)
        return false;
    room -= sizeof *header;
    if (header->kind < RECORD_BLOCK || header->kind > RECORD_END_OF_INPUT || (header->flags & ~RECORD_EXTERNAL) != 0)
        return false;
    if (header->hash_length > SUPERVM_MAX_HASH_BYTES || header->parent_length > SUPERVM_MAX_HASH_BYTES ||
        header->position_length > SUPERVM_MAX_POSITION_BYTES || header->item_length > SUPERVM_MAX_HASH_BYTES)
        return false;
    if (header->weight_length != 0 && header->weight_length != SUPERVM_WEIGHT_BYTES)
        return false;
    if (header->kind == RECORD_REORG) {
        if (header->item_length == 0 ? header->payload_length != 0 : header->payload_length % header->item_length != 0)
            return false;
    } else if (header->item_length != 0) {
        return false;
    }
    uint64_t stored = record_stored_length(header);
    return stored <= room && record_tails_length(header) <= room - stored;
}

#endif
