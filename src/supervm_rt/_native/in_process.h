/* Slots whose plugin is loaded into the host's own process: both ends of the rings are here. */
#ifndef SUPERVM_NATIVE_IN_PROCESS_H
#define SUPERVM_NATIVE_IN_PROCESS_H

#include "channel.h"
#include "slot.h"

/* A free slot with fresh rings, or NULL with errno: EUSERS (all in use), ENOMEM, EINVAL (ring sizes), EMFILE. */
struct slot *slot_take(uint64_t ring_bytes, uint64_t side_ring_bytes, uint64_t generation, uint32_t heartbeat_interval_ms);
/* Frees what slot_take made. The library is unmapped, the releaser has finished. */
void slot_give_back(struct slot *slot);
int slot_used_count(void);

/* Ends all waits; the sink answers SUPERVM_STOPPING from now on. Logs and metrics are still taken. */
void slot_begin_stop(struct slot *slot);

#endif
