/* A remote plugin in C without any library: registers over the host's socket and sends BLOCKS blocks of the chain dev.
 *
 * ACT: 0 goes on until it is told to stop, then ends its stream; 1 crashes behind its blocks; 2 exits before it registers;
 * 3 does not stop; 4 tries what its sandbox forbids, and says in a log line what worked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int host;

static void die(const char *what)
{
    perror(what);
    exit(3);
}

static void put(const uint8_t *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(host, data, length, MSG_NOSIGNAL);
        if (sent <= 0)
            die("send");
        data += sent, length -= (size_t)sent;
    }
}

static void frame(uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *data, size_t length)
{
    uint8_t head[9] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, type, flags,
                       (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    put(head, sizeof head);
    put(data, length);
}

static size_t text(uint8_t *at, const char *value)
{
    size_t length = strlen(value);
    at[0] = (uint8_t)length;
    memcpy(at + 1, value, length);
    return length + 1;
}

static void call(uint32_t stream, const char *path)
{
    const char *const pairs[][2] = {{":method", "POST"}, {":scheme", "http"}, {":path", path},
                                    {":authority", "host"}, {"te", "trailers"}, {"content-type", "application/grpc"}};
    uint8_t block[512];
    size_t length = 0;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        block[length++] = 0; /* A literal that goes into no table. */
        length += text(block + length, pairs[i][0]);
        length += text(block + length, pairs[i][1]);
    }
    frame(1, 4, stream, block, length);
}

static void message(uint32_t stream, const uint8_t *data, size_t length, int last)
{
    uint8_t whole[1024] = {0, 0, 0, (uint8_t)(length >> 8), (uint8_t)length};
    memcpy(whole + 5, data, length);
    frame(0, last ? 1 : 0, stream, whole, length + 5);
}

static size_t field(uint8_t *at, unsigned number, const void *data, size_t length)
{
    size_t used = 0;
    unsigned key = number << 3 | 2;
    if (key > 127)
        at[used++] = (uint8_t)(key | 0x80), key >>= 7;
    at[used++] = (uint8_t)key;
    at[used++] = (uint8_t)length;
    memcpy(at + used, data, length);
    return used + length;
}

/* Reads frames until one of data comes on the stream (1), or it ends (0). */
static int hear(uint32_t stream)
{
    for (;;) {
        static uint8_t data[1 << 17];
        uint8_t head[9];
        if (recv(host, head, sizeof head, MSG_WAITALL) != sizeof head)
            return 0;
        size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        uint32_t of = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
        if (length > sizeof data || (length > 0 && recv(host, data, length, MSG_WAITALL) != (ssize_t)length))
            return 0;
        if (head[3] == 4 && !(head[4] & 1))
            frame(4, 1, 0, NULL, 0);
        else if (head[3] == 6 && !(head[4] & 1))
            frame(6, 1, 0, data, length);
        else if (head[3] == 0 && of == stream && length > 5)
            return 1;
        else if (of == stream && (head[3] == 3 || (head[3] == 1 && head[4] & 1)))
            return 0;
    }
}

static void say(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
}

static void try_to_escape(void)
{
    if (access("/etc/passwd", F_OK) == 0 || access("/proc/self", F_OK) == 0 || access("/tmp", F_OK) == 0)
        say("escape: it sees the host's files");
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0)
        say("escape: it makes a TCP socket");
    if (open("/made", O_CREAT | O_WRONLY, 0600) >= 0)
        say("escape: it writes a file");
    if (fork() >= 0)
        say("escape: it makes a process");
    if (getuid() == 0)
        say("escape: it is root");
    say("tried all");
}

int main(void)
{
    if (ACT == 2)
        return 7;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("SUPERVM_SOCKET");
    if (path == NULL)
        die("SUPERVM_SOCKET");
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    host = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (host < 0 || connect(host, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    if (ACT == 4)
        try_to_escape();
    put((const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    frame(4, 0, 0, NULL, 0);
    uint8_t data[512];
    size_t length = field(data, 1, NAME, strlen(NAME));
    length += field(data + length, 2, "1.0.0", 5);
    length += field(data + length, 3, "dev", 3);
    length += field(data + length, 4, "block_stream", 12);
    data[length++] = 6 << 3, data[length++] = 1; /* The revision that it knows: it is told to stop. */
    call(1, "/supervm.plugin.PluginHost/Register");
    message(1, data, length, 1);
    if (!hear(1))
        die("the registration was not answered");
    call(3, "/supervm.plugin.PluginHost/BlockExchange");
    for (uint8_t height = 1; height <= BLOCKS; height++) {
        uint8_t id[32], parent[32];
        memset(id, height, sizeof id);
        memset(parent, height - 1, sizeof parent);
        length = field(data, 1, "dev", 3);
        data[length++] = 2 << 3, data[length++] = height;
        length += field(data + length, 3, "block", 5);
        length += field(data + length, FIELD_HASH, id, sizeof id);
        length += field(data + length, FIELD_PARENT, parent, sizeof parent);
        message(3, data, length, 0);
    }
    if (ACT == 1) {
        sleep(1);
        *(volatile int *)(uintptr_t)16 = 1;
    }
    while (hear(3))
        if (ACT != 3 && getenv("SUPERVM_PLUGIN") != NULL)
            break; /* Acknowledged or told to stop: it has nothing more to say. */
    if (ACT == 3)
        for (;;)
            pause();
    frame(0, 1, 3, NULL, 0);
    while (hear(3))
        ;
    return 0;
}
