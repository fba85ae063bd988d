/* supervm/block_sink.h - extension "supervm.block_sink/1": how a plugin hands blocks and what it knows of forks to the host.
 *
 * Needs the capability block_stream. Everything a plugin says here arrives in the order in which it was said.
 *
 * WAITING. The ring between plugin and host has a bound. publish, reserve, publish_release, reorg, finalized and end_of_input
 * wait while it is full, for the host to make room; the wait ends with SUPERVM_STOPPING when the plugin is being stopped. A
 * plugin that waits here counts as alive. The try_ variants answer SUPERVM_WOULD_BLOCK instead.
 *
 * THREADS. Any thread may call; calls are serialised. Between a reserve and its commit or abandon the calling thread holds the
 * sink: other threads wait for it, and a second call of the same thread answers SUPERVM_BUSY, as does a call out of a signal
 * handler that interrupted one. States: from plugin_init on, until plugin_stop returns.
 *
 * MEMORY. Every pointer inside the structs is the plugin's and is read before the call returns, except the payload of
 * publish_release.
 */
#ifndef SUPERVM_BLOCK_SINK_H
#define SUPERVM_BLOCK_SINK_H

#include "plugin.h"

#define SUPERVM_BLOCK_SINK_1 "supervm.block_sink/1"

#define SUPERVM_HEIGHT_UNKNOWN UINT64_MAX
#define SUPERVM_TIME_UNKNOWN INT64_MIN
#define SUPERVM_MAX_HASH_BYTES 64
#define SUPERVM_WEIGHT_BYTES 32
#define SUPERVM_MAX_POSITION_BYTES 256

/* One block. What the host can work out from the bytes it works out and compares; a plugin may leave it unknown. */
struct supervm_block_1 {
    uint32_t struct_size;     /* sizeof(struct supervm_block_1). */
    uint32_t flags;           /* 0. */
    uint64_t height;          /* The block's height or slot, or SUPERVM_HEIGHT_UNKNOWN. */
    uint64_t final_height;    /* Once this block is canonical, blocks up to this height are final; or SUPERVM_HEIGHT_UNKNOWN. */
    int64_t time;             /* Nanoseconds since 1970-01-01 UTC, or SUPERVM_TIME_UNKNOWN. */
    const uint8_t *hash;      /* Id of the block in the order in which the chain prints it, or NULL with length 0. */
    const uint8_t *parent;    /* Id of its parent, likewise. */
    const uint8_t *weight;    /* The block's own weight (work, difficulty), SUPERVM_WEIGHT_BYTES little-endian bytes, or NULL. */
    const uint8_t *position;  /* Where the plugin would go on after this block: opaque to the host; NULL with length 0: none. */
    const uint8_t *payload;   /* The block's bytes as the chain serialises them. Ignored by commit. */
    uint32_t hash_length;     /* In bytes, at most SUPERVM_MAX_HASH_BYTES. */
    uint32_t parent_length;   /* Likewise. */
    uint32_t position_length; /* In bytes, at most SUPERVM_MAX_POSITION_BYTES. */
    uint32_t reserved;        /* 0. */
    uint64_t payload_length;  /* In bytes. For commit: how many of the reserved bytes count, at most what was reserved. */
};

/* A reorganisation, said before the blocks of the new branch: the blocks above to_height up to from_height leave the chain.
 * The host checks it against the chain it follows. */
struct supervm_reorg_1 {
    uint32_t struct_size;     /* sizeof(struct supervm_reorg_1). */
    uint32_t orphan_length;   /* Bytes of each id in orphans, at most SUPERVM_MAX_HASH_BYTES. */
    uint64_t from_height;     /* Height of the tip that leaves. */
    uint64_t to_height;       /* Height of the last block that stays. */
    const uint8_t *orphans;   /* Ids of the blocks that leave, tip first: orphan_count times orphan_length bytes. */
    uint64_t orphan_count;
    const uint8_t *position;  /* As in supervm_block_1. */
    uint32_t position_length;
    uint32_t reserved;        /* 0. */
};

struct supervm_block_sink_1 {
    uint32_t struct_size; /* sizeof(struct supervm_block_sink_1) as the host knows it. */
    uint32_t reserved;
    uint64_t max_payload; /* The largest payload, in bytes, that publish and reserve take. */
    void *host;           /* First argument of every function below. OWNERSHIP: the host's, as the vtable. */

    /* Copies the block into the ring. */
    int32_t (*publish)(void *host, const struct supervm_block_1 *block);
    int32_t (*try_publish)(void *host, const struct supervm_block_1 *block);

    /* Gives payload_length writable bytes inside the ring in *payload, to be followed by exactly one commit or abandon from
     * the same thread. Whatever commit answers, the reservation is over. OWNERSHIP: the host's; the plugin may write until
     * then. */
    int32_t (*reserve)(void *host, uint64_t payload_length, uint8_t **payload);
    int32_t (*try_reserve)(void *host, uint64_t payload_length, uint8_t **payload);
    int32_t (*commit)(void *host, const struct supervm_block_1 *block);
    int32_t (*abandon)(void *host);

    /* Publishes without a copy where the plugin shares the host's process. release(argument) is called exactly once, whatever
     * this call answers: when the host is done with the payload, or at once where it is refused. It may run on any thread,
     * also before this call returns; it must not call the host. OWNERSHIP: payload stays the plugin's, and unchanged, until
     * then. */
    int32_t (*publish_release)(void *host, const struct supervm_block_1 *block, void (*release)(void *argument), void *argument);

    /* Says that the chain is about to leave a branch. */
    int32_t (*reorg)(void *host, const struct supervm_reorg_1 *reorg);

    /* Says that the block of this id and all below it are final. */
    int32_t (*finalized)(void *host, const uint8_t *hash, uint32_t hash_length, uint64_t height);

    /* Says that there is no more input for now: the source was read to its end. Blocks may follow later. */
    int32_t (*end_of_input)(void *host);
};

SUPERVM_ASSERT(offsetof(struct supervm_block_1, height) == 8, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_block_1, hash) == 32, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_block_1, hash_length) == 32 + 5 * sizeof(void *), "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_block_1) == 56 + 5 * sizeof(void *), "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_reorg_1) == 40 + 2 * sizeof(void *), "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_block_sink_1, host) == 16, "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_block_sink_1) == 16 + 11 * sizeof(void *), "frozen");

#endif
