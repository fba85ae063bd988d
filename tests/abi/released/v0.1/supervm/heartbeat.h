/* supervm/heartbeat.h - extension "supervm.heartbeat/1": a sign of life (clause L2).
 *
 * A plugin that asks for this extension is held to it from plugin_start on: it beats at least once in each interval_ms, or is
 * taken for hung. One that never asks is not, unless its manifest sets a deadline. A plugin whose thread waits inside the
 * block sink counts as alive without a beat, and so does one that publishes.
 */
#ifndef SUPERVM_HEARTBEAT_H
#define SUPERVM_HEARTBEAT_H

#include "plugin.h"

#define SUPERVM_HEARTBEAT_1 "supervm.heartbeat/1"

struct supervm_heartbeat_1 {
    uint32_t struct_size; /* sizeof(struct supervm_heartbeat_1) as the host knows it. */
    uint32_t interval_ms; /* The longest time, in milliseconds, between two beats. */
    void *host;           /* First argument of every function below. */

    /* Costs a few nanoseconds and never waits. Any thread; also from a signal handler. 0, or SUPERVM_STOPPING. */
    int32_t (*beat)(void *host);
};

SUPERVM_ASSERT(offsetof(struct supervm_heartbeat_1, host) == 8, "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_heartbeat_1) == 8 + 2 * sizeof(void *), "frozen");

#endif
