/* The control channel: messages between the host and the runner over one stream socket.
 *
 * A message is a header and so many bytes. The host's are trusted. The runner's are not: the plugin shares the runner's process
 * and can write to the socket itself, so the host checks kind, order and length of each.
 */
#ifndef SUPERVM_RUNNER_CONTROL_H
#define SUPERVM_RUNNER_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum control_kind {
    /* From the host. */
    CONTROL_SETUP = 1,  /* struct setup and what follows it; carries the descriptors. */
    CONTROL_GRANT = 2,  /* struct grant, then configuration and position. */
    CONTROL_INIT = 3,   /* Call plugin_init. */
    CONTROL_START = 4,  /* Call plugin_start. */
    CONTROL_STOP = 5,   /* Call plugin_stop; start may still be running. */
    CONTROL_UNLOAD = 6, /* End the process. */
    /* From the runner. */
    CONTROL_ENTERED = 64,      /* Confined; from here on the plugin's code runs. value: the version of Landlock, 0: none. */
    CONTROL_LOADED = 65,       /* The manifest of plugin_get_manifest_json. */
    CONTROL_FAILED = 66,       /* Loading went no further: value is an enum control_fault, the text says more. */
    CONTROL_INITIALISED = 67,  /* value: what plugin_init answered. */
    CONTROL_STARTED = 68,      /* value: what plugin_start answered. */
    CONTROL_STOPPED = 69,      /* value: what plugin_stop answered. */
};

enum control_fault {
    FAULT_CONFINEMENT = 1,     /* A layer of the sandbox could not be put up. */
    FAULT_REFUSED = 2,         /* The dynamic linker refused the library. */
    FAULT_MISSING_EXPORT = 3,  /* The text is the export's name. */
    FAULT_MANIFEST_NULL = 4,
    FAULT_MANIFEST_LENGTH = 5,
};

struct control_header {
    uint32_t kind;
    uint32_t length; /* Bytes that follow. */
    int32_t value;
    uint32_t reserved;
};

/* The first message. Behind it: the seccomp programs for loading and for running, then the paths, each an 'r' or 'w' (what may be
 * read, what may be written too), the path and a NUL. UINT64_MAX stands for no limit. */
struct setup {
    uint64_t ring_bytes;
    uint64_t side_ring_bytes;
    uint64_t data_limit;      /* RLIMIT_DATA, in bytes. */
    uint64_t task_limit;      /* RLIMIT_NPROC. */
    uint64_t file_size_limit; /* RLIMIT_FSIZE, in bytes. */
    uint32_t heartbeat_ms;
    uint32_t flags; /* SETUP_* */
    uint32_t loading_bytes;
    uint32_t running_bytes;
    uint32_t paths_bytes;
    uint32_t reserved;
};

#define SETUP_PLUGIN_BY_DESCRIPTOR 1u /* The library is the last descriptor, else PLUGIN_PATH. */
#define SETUP_LANDLOCK_REQUIRED 2u
#define SETUP_NETWORK 4u /* The socket of supervm.net/1 is the sixth descriptor. */
#define SETUP_MEASURED 8u /* Its host, which has no further rights, looks at what it holds open. */

#define PLUGIN_PATH "/plugin.so"

struct grant {
    uint32_t grants;
    uint32_t has_position;
    uint64_t configuration_length;
    uint64_t position_length;
};

#define CONTROL_MAX_BYTES (4u << 20)
#define CONTROL_DESCRIPTORS 7

struct message {
    struct control_header header;
    uint8_t *bytes; /* From malloc; length and a NUL. */
    int descriptors[CONTROL_DESCRIPTORS];
    int descriptor_count;
};

/* Waits for the next message. false: the host is gone, or speaks otherwise. */
bool control_receive(int socket, struct message *message);

/* Sends from any thread. What cannot be sent is dropped: the host is gone then. */
void control_send(int socket, uint32_t kind, int32_t value, const void *bytes, size_t length);

#endif
