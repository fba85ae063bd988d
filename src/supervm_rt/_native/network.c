#define _GNU_SOURCE
#include "network.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "slot.h"

/* What the host may take beyond a request's own deadline, and for those that have none. */
#define GRACE_NS 10000000000
/* How often a waiting thread looks whether it is to stop, and gives a sign of life. */
#define SLICE_MS 100

#define NO_END INT64_MAX

static bool stopping(const struct slot *slot)
{
    return !(slot_grants(slot) & SLOT_OPEN) || ring_stopped(slot->ring);
}

/* ---- reading for all who wait; the mutex is held ------------------------------------------------------------------------- */

static struct network_wait *wait_of(struct network *network, uint32_t id)
{
    for (int index = 0; index < SUPERVM_NET_MAX_REQUESTS; index++)
        if (network->waits[index].id == id)
            return &network->waits[index];
    return NULL;
}

/* Takes one answer where there is one. What nobody waits for any more is closed. */
static void take_answer(struct network *network)
{
    struct network_answer answer;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } extra;
    struct iovec part = {.iov_base = &answer, .iov_len = sizeof answer};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &extra, .msg_controllen = sizeof extra};
    ssize_t count = recvmsg(network->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    int descriptor = -1;
    for (struct cmsghdr *each = count < 0 ? NULL : CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS)
            memcpy(&descriptor, CMSG_DATA(each), sizeof descriptor);
    struct network_wait *wait = count == (ssize_t)sizeof answer && answer.id ? wait_of(network, answer.id) : NULL;
    if (wait && !wait->answered) {
        wait->answer = answer;
        wait->descriptor = descriptor;
        wait->answered = true;
    } else if (descriptor >= 0) {
        close(descriptor);
    }
    if (count != (ssize_t)sizeof answer)
        network->ended = true;
}

/* Waits for an answer, at most a slice, as the one that reads. */
static void read_once(struct network *network)
{
    network->reading = true;
    pthread_mutex_unlock(&network->mutex);
    struct pollfd source = {.fd = network->socket, .events = POLLIN};
    poll(&source, 1, SLICE_MS);
    pthread_mutex_lock(&network->mutex);
    network->reading = false;
    if (source.revents)
        take_answer(network);
    pthread_cond_broadcast(&network->change);
}

static void wait_a_slice(struct network *network)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SLICE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&network->change, &network->mutex, &until);
}

/* ---- one request ---------------------------------------------------------------------------------------------------------- */

static int32_t send_request(struct network *network, const struct network_request *request)
{
    for (;;) {
        if (send(network->socket, request, sizeof *request, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof *request)
            return SUPERVM_OK;
        if (errno == EAGAIN)
            return SUPERVM_QUEUE_FULL; /* The host has much to do. */
        if (errno != EINTR)
            return SUPERVM_STOPPING;
    }
}

/* Sends a request and waits for its answer. *descriptor: what came along, -1: nothing. */
static int32_t ask(struct slot *slot, struct network_request *request, struct network_answer *answer, int *descriptor)
{
    struct network *network = &slot->network;
    int64_t end = request->timeout_ms < 0 ? NO_END : clock_now() + request->timeout_ms * INT64_C(1000000) + GRACE_NS;
    *descriptor = -1;
    if (stopping(slot))
        return SUPERVM_STOPPING;
    pthread_mutex_lock(&network->mutex);
    struct network_wait *wait = wait_of(network, 0);
    if (!wait || network->ended) {
        pthread_mutex_unlock(&network->mutex);
        return wait ? SUPERVM_STOPPING : SUPERVM_QUEUE_FULL;
    }
    do {
        network->last_id++;
    } while (network->last_id == 0 || wait_of(network, network->last_id));
    request->id = network->last_id;
    request->generation = network->generation;
    *wait = (struct network_wait){.id = request->id, .descriptor = -1};
    int32_t status = send_request(network, request);
    while (status == SUPERVM_OK && !wait->answered) {
        slot_sign_of_life(slot);
        if (network->ended || stopping(slot))
            status = SUPERVM_STOPPING;
        else if (clock_now() > end)
            status = SUPERVM_TIMED_OUT;
        else if (network->reading)
            wait_a_slice(network);
        else
            read_once(network);
    }
    if (wait->answered) {
        *answer = wait->answer;
        *descriptor = wait->descriptor;
        status = wait->answer.status;
    }
    wait->id = 0;
    pthread_mutex_unlock(&network->mutex);
    return status;
}

/* ask, for what brings a socket. */
static int32_t ask_for_socket(struct slot *slot, struct network_request *request, int *fd)
{
    struct network_answer answer;
    int descriptor;
    int32_t status = ask(slot, request, &answer, &descriptor);
    if (status == SUPERVM_OK && descriptor < 0)
        return SUPERVM_NO_MEMORY; /* The kernel had no free number for it. */
    if (status == SUPERVM_OK)
        *fd = descriptor;
    else if (descriptor >= 0)
        close(descriptor);
    return status;
}

static int32_t put_name(struct network_request *request, const char *name)
{
    size_t length = name ? strnlen(name, SUPERVM_NET_MAX_HOST_BYTES + 1u) : 0;
    if (length == 0 || length > SUPERVM_NET_MAX_HOST_BYTES)
        return SUPERVM_INVALID_ARGUMENT;
    memcpy(request->name, name, length);
    request->name_length = (uint16_t)length;
    return SUPERVM_OK;
}

/* ---- the extension -------------------------------------------------------------------------------------------------------- */

static int32_t net_connect(void *host, const char *name, uint16_t port, uint32_t flags, int32_t timeout_ms, int *fd)
{
    struct slot *slot = slot_of_host(host);
    struct network_request request = {.kind = NETWORK_CONNECT, .port = port, .flags = flags, .timeout_ms = timeout_ms};
    if (!slot || !fd || port == 0 || timeout_ms <= 0 || flags & ~SUPERVM_NET_NONBLOCKING || put_name(&request, name) != SUPERVM_OK)
        return SUPERVM_INVALID_ARGUMENT;
    if (request.timeout_ms > SUPERVM_NET_MAX_TIMEOUT_MS)
        request.timeout_ms = SUPERVM_NET_MAX_TIMEOUT_MS;
    return ask_for_socket(slot, &request, fd);
}

static int32_t net_listen(void *host, const char *address, uint16_t port, uint32_t flags, uint64_t *listener, uint16_t *bound_port)
{
    struct slot *slot = slot_of_host(host);
    struct network_request request = {.kind = NETWORK_LISTEN, .port = port};
    if (!slot || !listener || flags || put_name(&request, address) != SUPERVM_OK)
        return SUPERVM_INVALID_ARGUMENT;
    struct network_answer answer;
    int descriptor;
    int32_t status = ask(slot, &request, &answer, &descriptor);
    if (descriptor >= 0)
        close(descriptor);
    if (status == SUPERVM_OK) {
        *listener = answer.listener;
        if (bound_port)
            *bound_port = (uint16_t)answer.port;
    }
    return status;
}

static int32_t net_accept(void *host, uint64_t listener, uint32_t flags, int32_t timeout_ms, int *fd)
{
    struct slot *slot = slot_of_host(host);
    struct network_request request = {
        .kind = NETWORK_ACCEPT, .listener = listener, .flags = flags, .timeout_ms = timeout_ms < 0 ? -1 : timeout_ms};
    if (!slot || !fd || flags & ~SUPERVM_NET_NONBLOCKING)
        return SUPERVM_INVALID_ARGUMENT;
    return ask_for_socket(slot, &request, fd);
}

static int32_t net_close_listener(void *host, uint64_t listener)
{
    struct slot *slot = slot_of_host(host);
    struct network_request request = {.kind = NETWORK_CLOSE_LISTENER, .listener = listener};
    if (!slot)
        return SUPERVM_INVALID_ARGUMENT;
    struct network_answer answer;
    int descriptor;
    int32_t status = ask(slot, &request, &answer, &descriptor);
    if (descriptor >= 0)
        close(descriptor);
    return status;
}

/* ---- the socket ----------------------------------------------------------------------------------------------------------- */

void network_prepare(struct slot *slot)
{
    struct network *network = &slot->network;
    pthread_condattr_t attributes;
    memset(network, 0, sizeof *network);
    network->socket = -1;
    pthread_mutex_init(&network->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&network->change, &attributes);
    pthread_condattr_destroy(&attributes);
}

int network_attach(struct slot *slot, int socket)
{
    struct network_greeting greeting;
    ssize_t count = recv(socket, &greeting, sizeof greeting, MSG_DONTWAIT);
    if (count != (ssize_t)sizeof greeting) {
        int error = count < 0 ? errno : EPROTO;
        close(socket);
        return error;
    }
    slot->net = (struct supervm_net_1){
        .struct_size = sizeof slot->net,
        .max_sockets = greeting.max_sockets,
        .host = slot,
        .connect = net_connect,
        .listen = net_listen,
        .accept = net_accept,
        .close_listener = net_close_listener,
    };
    slot->network.generation = greeting.generation;
    slot->network.socket = socket;
    return 0;
}

void network_detach(struct slot *slot)
{
    struct network *network = &slot->network;
    if (network->socket >= 0)
        close(network->socket);
    network->socket = -1;
    pthread_cond_destroy(&network->change);
    pthread_mutex_destroy(&network->mutex);
}
