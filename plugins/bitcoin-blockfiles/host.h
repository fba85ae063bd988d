/* host.h - this plugin's view of its host: the vtable and the extensions it needs, taken once in plugin_init. */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stdint.h>

#include <supervm/supervm.h>

/* What plugin_init, plugin_start and host_request_shutdown say went wrong. The README lists them; never renumbered. */
enum failure {
    FAILURE_NONE = 0,
    FAILURE_HOST = 1,     /* The host is too old, or did not grant block_stream. */
    FAILURE_SETTINGS = 2, /* The configuration is wrong. */
    FAILURE_FOLDER = 3,   /* blocks_dir cannot be read. */
    FAILURE_EMPTY = 4,    /* blocks_dir has no block files. */
    FAILURE_XOR_KEY = 5,  /* xor.dat cannot be used. */
    FAILURE_NETWORK = 6,  /* The files are those of another network. */
    FAILURE_SYSTEM = 7,   /* No memory, no thread, no file descriptor. */
    FAILURE_SINK = 8,     /* The host refused a block for a reason that does not pass. */
};

struct host {
    const struct supervm_host_vtable *vtable;
    const struct supervm_block_sink_1 *sink;
    const struct supervm_config_1 *config;
    const struct supervm_resume_1 *resume;       /* NULL where the host has none: then every run starts at the beginning. */
    const struct supervm_heartbeat_1 *heartbeat; /* NULL where the host has none. */
};

/* One plugin instance has one host, and the v0 callbacks take no context: a global says so plainly. */
extern struct host host;

/* Takes the vtable and asks for the extensions. FAILURE_NONE or FAILURE_HOST, which is then logged as far as it can be. */
enum failure host_connect(void *vtable);

/* A line for the host's log, as printf. Cut at SUPERVM_MAX_LOG_BYTES. */
void host_say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A sign of life, where the host wants them. */
void host_beat(void);

/* How long this plugin may wait without a beat, in milliseconds, at most limit. */
int host_longest_wait(int limit);

#endif
