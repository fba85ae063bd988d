/* A plugin that uses the network as its configuration says: {"script": "connect 127.0.0.1 80 1000 0; talk; ..."}. Each command logs
 * "COMMAND: ANSWER". The last line is "done". The script runs in a thread, or in plugin_start where it begins with "here". */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <supervm/supervm.h>

static const struct supervm_host_vtable *host;
static const struct supervm_net_1 *net;
static char script[4096];
static pthread_t thread;
static int has_thread;
static int sockets[512];
static int socket_count;
static uint64_t listener;
static atomic_int stopping;

struct packet { /* struct network_request of the host */
    uint64_t generation, listener;
    uint32_t id, kind, flags;
    int32_t timeout_ms;
    uint16_t port, name_length;
    uint32_t reserved;
    char name[256];
};

SUPERVM_EXPORT const char *plugin_get_manifest_json(void) {
    return "{\"id\": \"org.example.client\", \"name\": \"client\", \"version\": \"1.0.0\", \"chain\": \"dev\", \"capabilities\": []}";
}
SUPERVM_EXPORT void plugin_free_string(char *text) { (void)text; }

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    host->host_log(SUPERVM_LOG_INFO, line);
}

static int last(void) { return socket_count ? sockets[socket_count - 1] : -1; }
static int32_t keep(int32_t status, int fd) {
    if (status == SUPERVM_OK) sockets[socket_count++] = fd;
    return status;
}
static int32_t reach(const char *name, unsigned port, int timeout, unsigned flags, int *fd) {
    *fd = -7;
    int32_t status = net->connect(net->host, name, (uint16_t)port, flags, timeout, fd);
    if ((status == SUPERVM_OK) != (*fd >= 0)) say("a descriptor without success, or the other way round");
    return status;
}

/* Counts of answers, as "0x3 -4x2". */
static void say_counts(const char *what, const int32_t *answers, int count) {
    char text[256] = "";
    for (int status = 0; status > -20; status--) {
        int found = 0;
        for (int index = 0; index < count; index++) found += answers[index] == status;
        if (found) snprintf(text + strlen(text), sizeof text - strlen(text), " %dx%d", status, found);
    }
    say("%s:%s", what, text);
}

static struct { char name[300]; unsigned port; int timeout; } aim;
static void *reach_at_once(void *answer) {
    int fd;
    *(int32_t *)answer = reach(aim.name, aim.port, aim.timeout, 0, &fd);
    return NULL;
}

/* The packet socket that the host's functions use, found as an attacker would. */
static int find_channel(void) {
    for (int fd = 3; fd < 1024; fd++) {
        int type = 0;
        socklen_t length = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET) return fd;
    }
    return -1;
}

static const char *error_of(long answer) { return answer < 0 ? strerrorname_np(errno) : "OK"; }

/* What could turn a connected socket to another end. */
static void escape(unsigned port) {
    int fd = last();
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    struct sockaddr_in other = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    struct msghdr message = {.msg_name = &other, .msg_namelen = sizeof other, .msg_iov = &part, .msg_iovlen = 1};
    say("unconnect: %s", error_of(syscall(SYS_connect, fd, &nowhere, sizeof nowhere)));
    say("reconnect: %s", error_of(syscall(SYS_connect, fd, &other, sizeof other)));
    say("fast open: %s", error_of(syscall(SYS_sendto, fd, "x", 1, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL, &other, sizeof other)));
    say("message: %s", error_of(syscall(SYS_sendmsg, fd, &message, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL)));
    say("urgent: %s", error_of(syscall(SYS_sendto, fd, "x", 1, MSG_OOB | MSG_NOSIGNAL, NULL, 0)));
    say("make: %s", error_of(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)));
    say("unblock: %s", error_of(fcntl(fd, F_SETFL, O_NONBLOCK)));
    int on = 1;
    say("option: %s", error_of(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)));
    /* A fresh state first, as far as it can be had: then to take connections of others. */
    syscall(SYS_connect, fd, &nowhere, sizeof nowhere);
    other.sin_port = 0;
    say("bind: %s", error_of(syscall(SYS_bind, fd, &other, sizeof other)));
    say("listen: %s", error_of(syscall(SYS_listen, fd, 1)));
    say("accept: %s", error_of(syscall(SYS_accept4, fd, NULL, NULL, SOCK_NONBLOCK)));
}

static void run(char *line) {
    char name[300] = "", command[32] = "";
    unsigned port = 0, flags = 0;
    int timeout = 0, count = 0, life = 0, fd;
    static int32_t answers[4096];
    if (sscanf(line, " %31s", command) != 1) return;
    if (sscanf(line, " connect %299s %u %d %u", name, &port, &timeout, &flags) == 4) {
        int32_t status = reach(name, port, timeout, flags, &fd);
        keep(status, fd);
        say("connect: %d", status);
    } else if (sscanf(line, " many %d %299s %u", &count, name, &port) == 3) {
        for (int index = 0; index < count; index++) keep(answers[index] = reach(name, port, 5000, 0, &fd), fd);
        say_counts("many", answers, count);
    } else if (sscanf(line, " until %299s %u", name, &port) == 2) {
        int32_t status;
        for (struct timespec pause = {.tv_nsec = 20000000}; (status = reach(name, port, 5000, 0, &fd)) == SUPERVM_QUEUE_FULL;)
            nanosleep(&pause, NULL);
        keep(status, fd);
        say("until: %d", status);
    } else if (sscanf(line, " threads %d %299s %u %d", &count, aim.name, &aim.port, &aim.timeout) == 4) {
        pthread_t threads[64];
        for (int index = 0; index < count; index++) pthread_create(&threads[index], NULL, reach_at_once, &answers[index]);
        for (int index = 0; index < count; index++) pthread_join(threads[index], NULL);
        say_counts("threads", answers, count);
    } else if (strcmp(command, "talk") == 0) {
        char answer[64] = "";
        ssize_t size = write(last(), "hello", 5) == 5 ? read(last(), answer, sizeof answer - 1) : -1;
        say("talk: %s", size < 0 ? strerrorname_np(errno) : answer);
    } else if (strcmp(command, "flags") == 0) {
        int type = 0;
        socklen_t length = sizeof type;
        getsockopt(last(), SOL_SOCKET, SO_TYPE, &type, &length);
        say("flags: %s %s %s", fcntl(last(), F_GETFL) & O_NONBLOCK ? "nonblocking" : "blocking",
            fcntl(last(), F_GETFD) & FD_CLOEXEC ? "close-on-exec" : "inherited", type == SOCK_STREAM ? "stream" : "other");
    } else if (strcmp(command, "read") == 0) {
        char byte;
        say("read: %s", error_of(read(last(), &byte, 1)));
    } else if (strcmp(command, "close") == 0) {
        while (socket_count) close(sockets[--socket_count]);
    } else if (sscanf(line, " listen %299s %u", name, &port) == 2) {
        uint16_t bound = 0;
        int32_t status = net->listen(net->host, name, (uint16_t)port, 0, &listener, &bound);
        say("listen: %d %u", status, bound);
    } else if (sscanf(line, " accept %d %u", &timeout, &flags) == 2) {
        fd = -7;
        int32_t status = net->accept(net->host, listener, flags, timeout, &fd);
        keep(status, fd);
        say("accept: %d", status);
    } else if (strcmp(command, "unlisten") == 0) {
        say("unlisten: %d", net->close_listener(net->host, listener));
    } else if (sscanf(line, " wrong %u", &port) == 1) {
        uint64_t number;
        say("wrong: %d %d %d %d %d %d", net->connect(net->host, NULL, 80, 0, 1, &fd), net->connect(net->host, "a", 0, 0, 1, &fd),
            net->connect(net->host, "a", 80, 2, 1, &fd), net->connect(net->host, "a", 80, 0, 0, &fd),
            net->connect(&number, "a", 80, 0, 1, &fd), net->listen(net->host, "", 80, 0, &number, NULL));
    } else if (sscanf(line, " escape %u", &port) == 1) {
        escape(port);
    } else if (sscanf(line, " raw %d %d", &count, &life) == 2) {
        int channel = find_channel();
        struct packet packet = {.generation = (uint64_t)life, .kind = 1, .timeout_ms = 1000, .port = 80, .name_length = 9, .name = "not.there"};
        for (int index = 0; index < count && !atomic_load(&stopping); index++) {
            packet.id = (uint32_t)index + 1;
            char answer[64];
            if (send(channel, &packet, sizeof packet, MSG_NOSIGNAL) < 0) break;
            while (recv(channel, answer, sizeof answer, MSG_DONTWAIT) > 0) {}
        }
        say("raw: sent");
    } else if (sscanf(line, " deaf %d", &count) == 1) { /* asks, and reads no answer */
        int channel = find_channel();
        struct packet packet = {.generation = 1, .kind = 1, .timeout_ms = 1000, .port = 80, .name_length = 9, .name = "not.there"};
        for (int index = 0; index < count; index++) {
            packet.id = (uint32_t)index + 1;
            if (send(channel, &packet, sizeof packet, MSG_NOSIGNAL) < 0) break;
        }
        say("deaf: sent");
    } else if (strcmp(command, "stale") == 0) {
        int channel = find_channel();
        struct packet packet = {.generation = 999, .id = 5, .kind = 1, .timeout_ms = 1000, .port = 80, .name_length = 1, .name = "a"};
        struct { uint64_t listener; uint32_t id; int32_t status; uint64_t rest; } answer = {0};
        send(channel, &packet, sizeof packet, MSG_NOSIGNAL);
        recv(channel, &answer, sizeof answer, 0);
        say("stale: %d", answer.status);
    } else if (strcmp(command, "garbage") == 0) {
        say("garbage: %s", error_of(send(find_channel(), "abc", 3, MSG_NOSIGNAL)));
    } else if (strcmp(command, "has") == 0) {
        say("has: %s", net ? "it" : "nothing");
    } else {
        say("unknown: %s", line);
    }
}

static void *work(void *unused) {
    char *place;
    for (char *line = strtok_r(script, ";", &place); line; line = strtok_r(NULL, ";", &place)) run(line);
    say("done");
    return unused;
}

SUPERVM_EXPORT int plugin_init(void *vtable) {
    host = vtable;
    net = host->host_get_extension(SUPERVM_NET_1);
    const struct supervm_config_1 *config = host->host_get_extension(SUPERVM_CONFIG_1);
    const char *json;
    uint64_t length;
    config->get(config->host, &json, &length);
    const char *found = strstr(json, "\"script\": \"");
    if (found) snprintf(script, sizeof script, "%.*s", (int)strcspn(found + 11, "\""), found + 11);
    return 0;
}

SUPERVM_EXPORT int plugin_start(void) {
    if (strncmp(script, "here;", 5) == 0) {
        memset(script, ' ', 5);
        work(NULL);
        return 0;
    }
    has_thread = pthread_create(&thread, NULL, work, NULL) == 0;
    return !has_thread;
}

SUPERVM_EXPORT int plugin_stop(void) {
    atomic_store(&stopping, 1);
    if (has_thread) pthread_join(thread, NULL);
    while (socket_count) close(sockets[--socket_count]);
    return 0;
}
