/* The slots: what one loaded plugin sees of the host, in the host's process or in a child.
 *
 * The frozen v0 callbacks carry no context, so each slot has C entry points of its own. The table is static: a pointer that a
 * plugin was given stays valid for the life of the process.
 */
#ifndef SUPERVM_NATIVE_SLOT_H
#define SUPERVM_NATIVE_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lock.h"
#include "network.h"
#include "record.h"
#include "releaser.h"
#include "side_ring.h"
#include "supervm/supervm.h"

#define SLOT_COUNT 64

/* The largest transaction that host_submit_tx takes, and the longest chain id, in bytes. */
#define SLOT_MAX_TRANSACTION_BYTES (1u << 20)
#define SLOT_MAX_CHAIN_BYTES 128

/* What was granted. SLOT_OPEN: a grant was made at all, and the plugin's life has not ended. */
#define SLOT_OPEN 1u
#define SLOT_BLOCK_STREAM 2u
#define SLOT_SUBMIT_TX 4u

struct slot {
    struct supervm_host_vtable vtable;
    struct supervm_block_sink_1 block_sink;
    struct supervm_config_1 config;
    struct supervm_heartbeat_1 heartbeat;
    struct supervm_resume_1 resume;
    struct supervm_net_1 net;

    bool used; /* The host's; one thread at a time. */
    _Atomic uint32_t grants;

    struct ring *ring; /* The producer's view of it. */
    struct side_ring *side;
    struct doorbell bell;
    struct releaser *releaser; /* NULL: the host is another process, and payloads are always copied. */
    struct channel *channel;   /* The host's end, where that is in this process; else NULL. */

    char *configuration;
    uint64_t configuration_length;
    uint8_t *position;
    uint64_t position_length;

    struct network network;

    /* The publishers' own. */
    _Alignas(64) struct owner_lock lock;
    bool reserved;
    uint64_t reserved_payload;
    uint8_t *reserved_record;
};

/* Fills in a slot whose rings exist; every other member is zero. */
void slot_prepare(struct slot *slot, struct ring *ring, struct side_ring *side, int event_fd, uint32_t heartbeat_interval_ms);
void slot_forget(struct slot *slot);
int slot_number(const struct slot *slot);

/* Opens the slot. Both buffers are copied; position NULL: none. 0, or an errno. Once, before plugin_init. */
int slot_grant(struct slot *slot, uint32_t grants, const char *configuration, uint64_t configuration_length,
               const uint8_t *position, uint64_t position_length);

/* The host said stop: ends the waits for the producers' lock. */
void slot_interrupt(struct slot *slot);
/* plugin_stop has returned: nothing is answered any more. */
void slot_close(struct slot *slot);

void slot_sign_of_life(struct slot *slot);

/* Whether a thread of the plugin is inside the block sink. */
bool slot_sink_is_busy(const struct slot *slot);

/* The slot that a plugin's host pointer names, or NULL. */
struct slot *slot_of_host(void *host);

static inline uint32_t slot_grants(const struct slot *slot)
{
    return atomic_load_explicit(&slot->grants, memory_order_acquire);
}

/* The functions of block_sink/1, for this slot. */
void sink_fill(struct slot *slot);
/* The largest payload that the sink copies. */
uint64_t sink_max_payload(const struct slot *slot);

/* The four callbacks and host_get_extension of slot number. */
void entries_fill(struct supervm_host_vtable *vtable, int number);
void slot_log(struct slot *slot, int level, const char *text);
int slot_submit_tx(struct slot *slot, const char *chain, const uint8_t *bytes, size_t length);
int slot_report_metric(struct slot *slot, const char *name, double value);
int slot_request_shutdown(struct slot *slot, int reason);
const void *slot_get_extension(struct slot *slot, const char *id);

extern struct slot slot_table[SLOT_COUNT];

#endif
