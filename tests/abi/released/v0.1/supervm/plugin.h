/* supervm/plugin.h - the core of the SuperVM plugin ABI (specification, section 4; clauses A1-A10).
 *
 * A plugin is a shared library that exports the five functions declared at the end of this file with C linkage. The host
 * loads it, reads its manifest, and calls init, start and stop, each once, in this order:
 *
 *     plugin_get_manifest_json -> plugin_init -> plugin_start -> ... -> plugin_stop -> (unmapped)
 *
 * THREADS. The host makes each of these calls from a thread of its own choosing, never two at once, with one exception:
 * plugin_stop may be called while plugin_start has not returned. A plugin may call the host from any thread, between the
 * moment plugin_init was entered and the moment plugin_stop returns. Each of these calls has a deadline; a call that passes it
 * is abandoned on its thread and the plugin with it.
 *
 * MEMORY. Buffers are pointer and length. Neither side ever frees the other's memory. The comment of each pointer says who
 * owns it (OWNERSHIP) and how long it lives.
 *
 * GROWTH. The first four members of the vtable are frozen. Everything else is reached through host_get_extension, which
 * answers NULL both for what this host does not know and for what was not granted. An extension is never changed; it is
 * followed by one with a higher revision in its id ("supervm.block_sink/1").
 *
 * RIGHTS. A plugin that is loaded into the host's process has every right the host has. Hosts do that for development only;
 * the same library, unmodified, is meant to run in a confined child process.
 */
#ifndef SUPERVM_PLUGIN_H
#define SUPERVM_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define SUPERVM_ABI_MAJOR 0
#define SUPERVM_ABI_MINOR 1

#if defined(__cplusplus)
#define SUPERVM_EXPORT extern "C" __attribute__((visibility("default")))
#define SUPERVM_ASSERT(condition, text) static_assert(condition, text)
#else
#define SUPERVM_EXPORT __attribute__((visibility("default")))
#define SUPERVM_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* Levels of host_log. Other values are taken as the nearest of these. */
#define SUPERVM_LOG_TRACE 0
#define SUPERVM_LOG_DEBUG 1
#define SUPERVM_LOG_INFO 2
#define SUPERVM_LOG_WARNING 3
#define SUPERVM_LOG_ERROR 4

/* The longest of each kind that the host keeps, in bytes; a longer log message or metric name is cut. */
#define SUPERVM_MAX_LOG_BYTES 4096
#define SUPERVM_MAX_METRIC_NAME_BYTES 256

/* What the host hands to plugin_init.
 * OWNERSHIP: the host's; valid until plugin_stop has returned, and readable (though every call answers SUPERVM_STOPPING) for
 * as long as the library is mapped. */
struct supervm_host_vtable {
    /* A line for the host's log. level: SUPERVM_LOG_*. msg: UTF-8, NUL-terminated, read before the call returns. May be
     * dropped, and is then counted, when the host cannot keep up. Never waits. Any thread; also from a signal handler. */
    void (*host_log)(int level, const char *msg);

    /* Hands a transaction for chain_id to the host, which routes it. 0: queued (not: accepted by the network; the outcome
     * comes through supervm.submission/1). Otherwise SUPERVM_NOT_GRANTED, _TOO_LARGE, _QUEUE_FULL, _NO_ROUTE, _STOPPING,
     * _INVALID_ARGUMENT or _BUSY. The bytes are copied before the call returns. Never waits. Any thread. */
    int (*host_submit_tx)(const char *chain_id, const uint8_t *tx, size_t len);

    /* One sample of a metric. name: UTF-8, NUL-terminated, copied. 0, or SUPERVM_QUEUE_FULL (dropped and counted),
     * _INVALID_ARGUMENT, _STOPPING, _BUSY. Never waits. Any thread; also from a signal handler. */
    int (*host_report_metric)(const char *name, double value);

    /* Asks the host to stop the plugin that calls this; never the node. The host calls plugin_stop soon after. reason_code 0:
     * the plugin's work is done; any other number: it cannot go on, which the host counts and reports as a failure. Answers 0,
     * or SUPERVM_STOPPING where it already is. Never waits. Any thread; also from a signal handler. */
    int (*host_request_shutdown)(int reason_code);

    /* From here on: only after a check of struct_size. A v0 plugin reads no further. */

    uint32_t abi_major;   /* SUPERVM_ABI_MAJOR of the host; a plugin refuses one it does not know. */
    uint32_t abi_minor;   /* Grows with each addition; informative. */
    uint32_t struct_size; /* sizeof(struct supervm_host_vtable) as the host knows it, in bytes. */
    uint32_t reserved;    /* 0. */

    /* Returns the extension of this id, a struct whose type the extension's own header gives, or NULL where the host does
     * not have it or did not grant it. id: NUL-terminated.
     * OWNERSHIP: the host's; valid as long as the vtable. Never waits. Any thread. */
    const void *(*host_get_extension)(const char *id);
};

SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, host_log) == 0, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, host_submit_tx) == sizeof(void *), "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, host_report_metric) == 2 * sizeof(void *), "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, host_request_shutdown) == 3 * sizeof(void *), "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, abi_major) == 4 * sizeof(void *), "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, abi_minor) == 4 * sizeof(void *) + 4, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, struct_size) == 4 * sizeof(void *) + 8, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_host_vtable, host_get_extension) == 4 * sizeof(void *) + 16, "frozen");

/* ---- what a plugin exports ------------------------------------------------------------------------------------------- */

/* The manifest as UTF-8 JSON, NUL-terminated. The host compares its id, name, version, chain and capabilities with the
 * manifest it was given and refuses a difference. Called once, before plugin_init.
 * OWNERSHIP: the plugin's; the host hands it back to plugin_free_string exactly once. */
SUPERVM_EXPORT const char *plugin_get_manifest_json(void);

/* Takes the vtable (a struct supervm_host_vtable). 0, or a number of the plugin's own that the host reports. After a failure
 * neither start nor stop is called. */
SUPERVM_EXPORT int plugin_init(void *host_api_vtable);

/* Starts the plugin's work and returns; what goes on goes on in threads of the plugin's own. 0, or a number of the plugin's own
 * that the host reports. plugin_stop is called after a failure too, and while this call runs past its deadline. */
SUPERVM_EXPORT int plugin_start(void);

/* Ends the plugin's work: returns when every thread that the plugin started has ended. 0, or a number of the plugin's own.
 * While it runs, every waiting call of the plugin into the host ends with SUPERVM_STOPPING. */
SUPERVM_EXPORT int plugin_stop(void);

/* Frees a string that the plugin returned; does nothing where the string is static. */
SUPERVM_EXPORT void plugin_free_string(char *s);

/* Optional: the other way round of host_get_extension. NULL for an id that the plugin does not serve.
 * OWNERSHIP: the plugin's; valid until plugin_stop has returned. */
SUPERVM_EXPORT const void *plugin_get_extension(const char *id);

#endif
