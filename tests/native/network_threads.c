/* Real threads on supervm.net/1, for the thread, address and undefined-behaviour sanitizers: no Python, no library to load.
 *
 * Sixteen threads and more ask at once; a host answers in any order, some late or never, some of it for requests that nobody made or
 * twice, some with a descriptor that nobody asked for. Every socket that comes holds the number of the request, which is compared.
 * Each round ends by a stop or by the host's closing its end, at any moment; then every thread has come back, and no descriptor is
 * left.
 *
 * Usage: network_threads ROUNDS SEED. Status 0: all was well. 1: it says what was not. */
#define _GNU_SOURCE
#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "in_process.h"

#define THREADS 20
#define RING_BYTES (UINT64_C(1) << 16)
#define HELD 8

static struct slot *slot;
static const struct supervm_net_1 *net;
static int host_end;
static _Atomic uint64_t connected, refused, full, stopped, strange;
static _Atomic uint32_t over;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("network_threads: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    _exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail("line %d: %s", __LINE__, #condition))

static uint64_t next_number(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    CHECK(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

/* ---- the host -------------------------------------------------------------------------------------------------------------- */

static void answer(uint32_t id, int32_t status, uint16_t number, bool with_descriptor)
{
    struct network_answer packet = {.id = id, .status = status, .port = number};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } extra = {0};
    struct iovec part = {.iov_base = &packet, .iov_len = sizeof packet};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int pair[2] = {-1, -1};
    if (with_descriptor) {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        CHECK(write(pair[1], &number, sizeof number) == (ssize_t)sizeof number);
        message.msg_control = &extra;
        message.msg_controllen = sizeof extra;
        extra.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(&extra.header), pair, sizeof(int));
    }
    sendmsg(host_end, &message, MSG_NOSIGNAL);
    if (with_descriptor) {
        close(pair[0]);
        close(pair[1]);
    }
}

static void *serve(void *seed)
{
    uint64_t state = *(uint64_t *)seed;
    struct network_request held[HELD];
    int count = 0;
    while (!atomic_load(&over)) {
        struct pollfd source = {.fd = host_end, .events = POLLIN};
        if (count < HELD && poll(&source, 1, count ? 0 : 5) > 0) {
            ssize_t size = recv(host_end, &held[count], sizeof *held, MSG_DONTWAIT);
            if (size <= 0)
                break;
            CHECK(size == (ssize_t)sizeof *held && held[count].generation == 7);
            count++;
            if (next_number(&state) % 2)
                continue;
        }
        if (!count)
            continue;
        int chosen = (int)(next_number(&state) % (uint64_t)count);
        struct network_request request = held[chosen];
        held[chosen] = held[--count];
        switch (next_number(&state) % 8) {
        case 0:
            answer(request.id, SUPERVM_UNREACHABLE, request.port, false);
            break;
        case 1: /* A refusal that brings a descriptor all the same. */
            answer(request.id, SUPERVM_UNREACHABLE, request.port, true);
            break;
        case 2: /* Success without one. */
            answer(request.id, SUPERVM_OK, request.port, false);
            break;
        case 3:
            answer(request.id + 100000, SUPERVM_OK, request.port, true);
            answer(request.id, SUPERVM_OK, request.port, true);
            answer(request.id, SUPERVM_OK, request.port, true);
            break;
        default:
            answer(request.id, SUPERVM_OK, request.port, true);
        }
    }
    return NULL;
}

/* ---- the plugin ------------------------------------------------------------------------------------------------------------ */

static void *ask(void *seed)
{
    uint64_t state = *(uint64_t *)seed;
    for (;;) {
        uint16_t number = (uint16_t)(next_number(&state) % 65535 + 1), told = 0;
        int fd = -5;
        int32_t status = net->connect(net->host, "node.example.org", number, 0, 60000, &fd);
        CHECK((status == SUPERVM_OK) == (fd >= 0));
        switch (status) {
        case SUPERVM_OK:
            CHECK(read(fd, &told, sizeof told) == (ssize_t)sizeof told && told == number);
            close(fd);
            atomic_fetch_add(&connected, 1);
            break;
        case SUPERVM_UNREACHABLE:
            atomic_fetch_add(&refused, 1);
            break;
        case SUPERVM_NO_MEMORY:
            atomic_fetch_add(&strange, 1);
            break;
        case SUPERVM_QUEUE_FULL:
            atomic_fetch_add(&full, 1);
            sched_yield();
            break;
        default:
            CHECK(status == SUPERVM_STOPPING);
            atomic_fetch_add(&stopped, 1);
            return NULL;
        }
    }
}

static void run_round(uint64_t *state)
{
    int ends[2];
    pthread_t threads[THREADS], host;
    uint64_t seeds[THREADS + 1];
    struct network_greeting greeting = {.generation = 7, .max_sockets = 128};
    slot = slot_take(RING_BYTES, RING_BYTES, 1, 30000);
    CHECK(slot);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    host_end = ends[0];
    CHECK(send(host_end, &greeting, sizeof greeting, 0) == (ssize_t)sizeof greeting);
    CHECK(slot_get_extension(slot, SUPERVM_NET_1) == NULL);
    CHECK(network_attach(slot, ends[1]) == 0);
    CHECK(slot_grant(slot, 0, "{}", 2, NULL, 0) == 0);
    net = slot_get_extension(slot, SUPERVM_NET_1);
    CHECK(net && net->max_sockets == 128);
    atomic_store(&over, 0);
    for (int index = 0; index <= THREADS; index++)
        seeds[index] = next_number(state);
    CHECK(pthread_create(&host, NULL, serve, &seeds[THREADS]) == 0);
    for (int index = 0; index < THREADS; index++)
        CHECK(pthread_create(&threads[index], NULL, ask, &seeds[index]) == 0);
    usleep((useconds_t)(next_number(state) % 30000));
    if (next_number(state) % 2)
        slot_begin_stop(slot);
    atomic_store(&over, 1);
    pthread_join(host, NULL);
    shutdown(host_end, SHUT_RDWR);
    for (int index = 0; index < THREADS; index++)
        pthread_join(threads[index], NULL);
    close(host_end);
    slot_give_back(slot);
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 10;
    uint64_t state = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    run_round(&state); /* What a C library opens once. */
    int before = descriptors();
    for (uint64_t round = 0; round < rounds; round++)
        run_round(&state);
    CHECK(descriptors() == before);
    printf("{\"connected\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"strange\": %" PRIu64 ", \"full\": %" PRIu64
           ", \"stopped\": %" PRIu64 "}\n",
           atomic_load(&connected), atomic_load(&refused), atomic_load(&strange), atomic_load(&full), atomic_load(&stopped));
    return 0;
}
