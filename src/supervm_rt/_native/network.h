/* The plugin's side of supervm.net/1: requests to the host over a socket of their own, which also brings the descriptors.
 *
 * The socket keeps packets whole (SOCK_SEQPACKET). The host writes a greeting before any code of the plugin runs. Several threads
 * may wait: one of them, whichever comes first, reads the answers for all.
 */
#ifndef SUPERVM_NATIVE_NETWORK_H
#define SUPERVM_NATIVE_NETWORK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "supervm/supervm.h"

enum network_kind { NETWORK_CONNECT = 1, NETWORK_LISTEN = 2, NETWORK_ACCEPT = 3, NETWORK_CLOSE_LISTENER = 4 };

struct network_greeting {
    uint64_t generation;
    uint32_t max_sockets;
    uint32_t reserved;
};

struct network_request {
    uint64_t generation;
    uint64_t listener;
    uint32_t id;
    uint32_t kind;
    uint32_t flags;
    int32_t timeout_ms;
    uint16_t port;
    uint16_t name_length;
    uint32_t reserved;
    char name[256]; /* name_length bytes. */
};

struct network_answer {
    uint64_t listener;
    uint32_t id;
    int32_t status; /* SUPERVM_OK for connect and accept: a descriptor comes along. */
    uint32_t port;
    uint32_t reserved;
};

SUPERVM_ASSERT(sizeof(struct network_greeting) == 16, "as the host packs it");
SUPERVM_ASSERT(sizeof(struct network_request) == 296, "as the host reads it");
SUPERVM_ASSERT(sizeof(struct network_answer) == 24, "as the host packs it");

/* One call that waits. */
struct network_wait {
    uint32_t id; /* 0: free. */
    bool answered;
    struct network_answer answer;
    int descriptor; /* -1: none came. */
};

struct network {
    int socket; /* -1: there is none, and no extension. */
    uint64_t generation;
    uint32_t last_id;
    bool reading; /* A thread reads for all. */
    bool ended;   /* The host has closed its end. */
    pthread_mutex_t mutex;
    pthread_cond_t change;
    struct network_wait waits[SUPERVM_NET_MAX_REQUESTS];
};

struct slot;

/* No network, until it is attached. */
void network_prepare(struct slot *slot);
/* Takes the socket over and reads the greeting, which is there. 0, or an errno; the socket is closed then. */
int network_attach(struct slot *slot, int socket);
void network_detach(struct slot *slot);

#endif
