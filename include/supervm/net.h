/* supervm/net.h - extension "supervm.net/1": connected sockets, made by the host.
 *
 * A plugin in a sandbox has no network of its own. The host resolves a name, checks each address that it is about to dial against
 * network.allow of the manifest and against the operator's own list, dials, and hands over the connected TCP socket: an ordinary
 * descriptor, close-on-exec, the plugin's to read, write and close. In a sandbox it can be used for that alone: it cannot be
 * connected elsewhere. The same calls serve a plugin in the host's process.
 *
 * host_get_extension answers NULL where neither network.allow nor network.listen was granted.
 *
 * BOUNDS. At once: SUPERVM_NET_MAX_REQUESTS calls, max_sockets sockets and SUPERVM_NET_MAX_LISTENERS listeners; and only so many
 * calls a second (the operator's manual says how many). Beyond them the answer is SUPERVM_QUEUE_FULL, at once: close what is not
 * used, or try again later.
 *
 * WAITING. A call waits inside the host, at most as long as its timeout says; while it waits the plugin counts as alive. It ends
 * with SUPERVM_STOPPING when the host stops the plugin. Any thread, from plugin_init on; never from a signal handler.
 */
#ifndef SUPERVM_NET_H
#define SUPERVM_NET_H

#include "plugin.h"

#define SUPERVM_NET_1 "supervm.net/1"

/* Calls of one plugin that may wait at the same time. */
#define SUPERVM_NET_MAX_REQUESTS 16
#define SUPERVM_NET_MAX_LISTENERS 8
/* The longest name or address, in bytes. */
#define SUPERVM_NET_MAX_HOST_BYTES 253
/* The longest timeout of connect; a longer one is cut to this. */
#define SUPERVM_NET_MAX_TIMEOUT_MS 60000

/* Flags. The socket that is handed over has O_NONBLOCK set: in a sandbox only the host can do that. */
#define SUPERVM_NET_NONBLOCKING 1u

struct supervm_net_1 {
    uint32_t struct_size; /* sizeof(struct supervm_net_1) as the host knows it. */
    uint32_t max_sockets; /* Sockets that the plugin may have at once, those that others opened to its listeners included. */
    void *host;           /* First argument of every function below. */

    /* A socket that is connected to name (a host name, an IPv4 address, or an IPv6 address without brackets; NUL-terminated, read
     * before the call returns) and port. timeout_ms: above 0; it covers resolving and dialling. *fd is written only on success.
     * OWNERSHIP: *fd is the plugin's to close.
     * SUPERVM_NOT_GRANTED: not listed, or every address that the name resolves to is refused. SUPERVM_NOT_FOUND: the name does
     * not resolve. SUPERVM_UNREACHABLE: nobody took the connection. SUPERVM_TIMED_OUT. SUPERVM_QUEUE_FULL: one of the bounds
     * above. SUPERVM_NO_MEMORY: no descriptor is free. SUPERVM_INVALID_ARGUMENT, _STOPPING. */
    int32_t (*connect)(void *host, const char *name, uint16_t port, uint32_t flags, int32_t timeout_ms, int *fd);

    /* Listens on an address of this machine that network.listen names. port 0: any free one, where the manifest lists port 0 or
     * every port. *listener is a number for the calls below, not a descriptor: the listening socket stays with the host, which
     * closes it when the plugin's life ends. *bound_port may be NULL. Both are written only on success. flags: 0.
     * SUPERVM_NOT_GRANTED, _UNREACHABLE (the address cannot be bound), _QUEUE_FULL, _INVALID_ARGUMENT, _STOPPING, _TIMED_OUT. */
    int32_t (*listen)(void *host, const char *address, uint16_t port, uint32_t flags, uint64_t *listener, uint16_t *bound_port);

    /* The next connection that somebody made to a listener. timeout_ms 0: only one that is there (else SUPERVM_WOULD_BLOCK);
     * negative: waits until there is one or the plugin is stopped. *fd as for connect.
     * SUPERVM_NOT_FOUND: no such listener, or it was closed meanwhile. SUPERVM_TIMED_OUT, _QUEUE_FULL, _NO_MEMORY,
     * _INVALID_ARGUMENT, _STOPPING. */
    int32_t (*accept)(void *host, uint64_t listener, uint32_t flags, int32_t timeout_ms, int *fd);

    /* Closes a listener; sockets that were accepted from it stay. SUPERVM_NOT_FOUND, _QUEUE_FULL, _STOPPING, _TIMED_OUT. */
    int32_t (*close_listener)(void *host, uint64_t listener);
};

SUPERVM_ASSERT(offsetof(struct supervm_net_1, host) == 8, "frozen");
SUPERVM_ASSERT(offsetof(struct supervm_net_1, connect) == 8 + sizeof(void *), "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_net_1) == 8 + 5 * sizeof(void *), "frozen");

#endif
