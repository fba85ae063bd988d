/* A remote plugin in C without any library: registers over the host's socket and sends BLOCKS blocks of the chain dev.
 *
 * ACT: 0 goes on until it is told to stop, then ends its stream; 1 crashes behind its blocks; 2 exits before it registers;
 * 3 does not stop; 4 tries what its sandbox forbids, and says in a log line what worked. Those that follow try one thing each, and
 * say how far they came: 5 its limits; 6 to connect to the sockets in GRANTED; 7 memory; 8 processor time; 9 its storage;
 * 10 names of threads; 11 the kernel's tables for memory that is only read; 12 a flood of line ends. 13 and 14 go on behind the
 * position that they are told, send PIECE blocks in each life, and once some of them are durable 13 crashes and 14 falls silent; the
 * life that sends the last block ends well. 15 uses out-of-band data; 16 has files that lie nowhere but on their way over a socket.
 * From 100 on: it exits at once with this status.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define PIECE 4

static int host;
static uint8_t said[1 << 17]; /* What was heard last: a message behind its prefix, if it came in one frame. */
static size_t said_length;

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
        uint8_t head[9];
        if (recv(host, head, sizeof head, MSG_WAITALL) != sizeof head)
            return 0;
        size_t length = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        uint32_t of = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8];
        if (length > sizeof said || (length > 0 && recv(host, said, length, MSG_WAITALL) != (ssize_t)length))
            return 0;
        said_length = length;
        if (head[3] == 4 && !(head[4] & 1))
            frame(4, 1, 0, NULL, 0);
        else if (head[3] == 6 && !(head[4] & 1))
            frame(6, 1, 0, said, length);
        else if (head[3] == 0 && of == stream && length > 5)
            return 1;
        else if (of == stream && (head[3] == 3 || (head[3] == 1 && head[4] & 1)))
            return 0;
    }
}

/* The position in the answer to a registration, which is the height of a block; 0: there is none. */
static uint8_t position(void)
{
    for (size_t at = 5; at < said_length;) {
        unsigned key = said[at++], shift = 0;
        size_t value = 0;
        do {
            value |= (size_t)(said[at] & 0x7f) << shift;
            shift += 7;
        } while (said[at++] & 0x80);
        if (key == (7 << 3 | 2))
            return said[at];
        at += (key & 7) == 2 ? value : 0;
    }
    return 0;
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

static void count(const char *what, long number)
{
    printf("%s %ld\n", what, number);
    fflush(stdout);
}

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static void try_limits(void)
{
    struct rlimit core;
    count("landlock", open("/supervm-enter", O_RDONLY) < 0 ? errno : 0);
    count("memory", mmap(NULL, 1u << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0);
    count("executable", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0);
    count("core", getrlimit(RLIMIT_CORE, &core) == 0 ? (long)core.rlim_max : -1);
    long files = 0, threads = 0;
    int opened[4096];
    while (files < 4096 && (opened[files] = dup(1)) >= 0)
        files++;
    count("files", files);
    while (files > 0)
        close(opened[--files]);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 16);
    for (pthread_t thread; threads < 4096 && pthread_create(&thread, &small, wait_for_ever, NULL) == 0;)
        threads++;
    count("threads", threads);
}

static struct sockaddr_un swapped;

static void *swap(void *wanted)
{
    for (;;) {
        memcpy(swapped.sun_path, getenv("SUPERVM_SOCKET"), strlen(getenv("SUPERVM_SOCKET")) + 1);
        memcpy(swapped.sun_path, wanted, strlen(wanted) + 1);
    }
    return wanted;
}

static void try_to_connect(const char *way, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    count(way, connect(made, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno);
    close(made);
}

static void try_sockets(void)
{
    try_to_connect("stream", GRANTED "/stream");
    try_to_connect("dots", "/supervm.sock/.." GRANTED "/stream");
    count("datagram", socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 ? 0 : errno);
    int pair[2];
    count("pair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0 ? 0 : errno);
    static char wanted[] = GRANTED "/stream";
    pthread_t thread;
    swapped.sun_family = AF_UNIX;
    pthread_create(&thread, NULL, swap, wanted);
    for (int tried = 0; tried < 600; tried++) {
        int made = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(made, (struct sockaddr *)&swapped, sizeof swapped);
        close(made);
    }
    while (access(GRANTED "/later", F_OK) != 0)
        usleep(5000);
    try_to_connect("later", GRANTED "/later");
    say("tried sockets");
}

static void try_out_of_band(void)
{
    int pair[2];
    char byte = 'x';
    struct mmsghdr whole = {.msg_hdr = {.msg_iov = &(struct iovec){&byte, 1}, .msg_iovlen = 1}};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        die("socketpair");
    count("send", send(pair[0], &byte, 1, MSG_OOB) == 1 ? 0 : errno);
    count("recv", recv(pair[1], &byte, 1, MSG_OOB | MSG_DONTWAIT) == 1 ? 0 : errno);
    count("sendmsg", sendmsg(pair[0], &whole.msg_hdr, MSG_OOB) == 1 ? 0 : errno);
    count("recvmsg", recvmsg(pair[1], &whole.msg_hdr, MSG_OOB | MSG_DONTWAIT) == 1 ? 0 : errno);
    count("sendmmsg", sendmmsg(pair[0], &whole, 1, MSG_OOB) == 1 ? 0 : errno);
    count("recvmmsg", recvmmsg(pair[1], &whole, 1, MSG_OOB | MSG_DONTWAIT, NULL) == 1 ? 0 : errno);
    count("ordinary", send(pair[0], &byte, 1, 0) == 1 && recv(pair[1], &byte, 1, 0) == 1 ? 0 : errno);
}

/* Names of threads that no text is, and one that the kernel's own page of it could be misread by. */
static void try_names(void)
{
    const char *ours = getenv("SUPERVM_SOCKET");
    prctl(PR_SET_NAME, "\xff\xfe");
    try_to_connect("nameless", ours);
    int made = socket(AF_UNIX, SOCK_STREAM, 0);
    count("kernel address", syscall(SYS_connect, made, 1UL << 63, 110UL) == 0 ? 0 : errno);
    prctl(PR_SET_NAME, "x\rTgid:\t1");
    try_to_connect("forged", ours);
    prctl(PR_SET_NAME, "\xff\xfe");
    say("tried names");
}

static void *take_memory(void *unused)
{
    for (long taken = 0;; taken++) {
        char *more = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (more == MAP_FAILED) {
            count("memory ended at", taken);
            return unused;
        }
        memset(more, 1, 1 << 20);
        usleep(2000);
    }
}

static void *take_tables(void *unused)
{
    size_t bytes = (size_t)96 << 30;
    volatile char *place = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t at = 0; (void *)place != MAP_FAILED && at < bytes; at += 2 << 20)
        (void)place[at];
    return unused;
}

static void *print_nothing(void *unused)
{
    static char ends[1 << 16];
    memset(ends, '\n', sizeof ends);
    for (int i = 0; i < 8; i++)
        for (size_t done = 0; done < sizeof ends;) {
            ssize_t written = write(1, ends + done, sizeof ends - done);
            if (written <= 0)
                return unused;
            done += (size_t)written;
        }
    return unused;
}

static void *burn(void *unused)
{
    for (volatile long turns = 0;; turns++)
        ;
    return unused;
}

static void fill_storage(void)
{
    static char block[1 << 16];
    int file = open("/storage/one", O_CREAT | O_WRONLY, 0600);
    long written = 0;
    while (file >= 0 && write(file, block, sizeof block) == (ssize_t)sizeof block)
        written++;
    count("one file", file < 0 ? -errno : written >> 4);
    for (int number = 0; number < 256; number++) {
        char name[64];
        snprintf(name, sizeof name, "/storage/%d", number);
        file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0 || write(file, block, sizeof block) != (ssize_t)sizeof block) {
            count("storage ended with", errno);
            return;
        }
        close(file);
    }
}

/* Files without a name and without a descriptor: each is on its way over a socket of its own, and nobody receives it. */
static void hide_storage(void)
{
    static char block[1 << 20];
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        die("socketpair");
    for (int number = 0; number < 12; number++) {
        int file = open("/storage/gone", O_CREAT | O_RDWR, 0600);
        if (file < 0 || unlink("/storage/gone") != 0)
            die("open");
        for (int written = 0; written < 3; written++)
            if (write(file, block, sizeof block) != (ssize_t)sizeof block) {
                count("hidden ended with", errno);
                return;
            }
        char byte = 'x';
        union {
            char space[CMSG_SPACE(sizeof file)];
            struct cmsghdr header;
        } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof file)}};
        memcpy(CMSG_DATA(&control.header), &file, sizeof file);
        struct msghdr message = {.msg_iov = &(struct iovec){&byte, 1},
                                 .msg_iovlen = 1,
                                 .msg_control = control.space,
                                 .msg_controllen = sizeof control.space};
        if (sendmsg(pair[0], &message, 0) != 1)
            die("sendmsg");
        close(file);
    }
    count("hidden ended with", 0);
}

int main(void)
{
    pthread_t thread;
    if (ACT == 2 || ACT >= 100)
        return ACT == 2 ? 7 : ACT;
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
    if (ACT == 5)
        try_limits();
    if (ACT == 6)
        try_sockets();
    if (ACT == 10)
        try_names();
    if (ACT == 16)
        hide_storage();
    if (ACT == 15)
        try_out_of_band();
    if (ACT == 7 || ACT == 8 || ACT == 11 || ACT == 12)
        pthread_create(&thread, NULL, ACT == 7 ? take_memory : ACT == 8 ? burn : ACT == 11 ? take_tables : print_nothing, NULL);
    if (ACT == 9)
        fill_storage();
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
    uint8_t first = 1, last = BLOCKS;
    if (ACT == 13 || ACT == 14) {
        first = (uint8_t)(position() + 1);
        last = first + PIECE - 1 < BLOCKS ? (uint8_t)(first + PIECE - 1) : BLOCKS;
    }
    call(3, "/supervm.plugin.PluginHost/BlockExchange");
    for (uint8_t height = first; height <= last; height++) {
        uint8_t id[32], parent[32];
        memset(id, height, sizeof id);
        memset(parent, height - 1, sizeof parent);
        length = field(data, 1, "dev", 3);
        data[length++] = 2 << 3, data[length++] = height;
        length += field(data + length, 3, "block", 5);
        length += field(data + length, FIELD_HASH, id, sizeof id);
        length += field(data + length, FIELD_PARENT, parent, sizeof parent);
        if (ACT == 13 || ACT == 14)
            length += field(data + length, 10, &height, 1);
        message(3, data, length, 0);
    }
    if (ACT == 1)
        sleep(1);
    if (ACT == 12)
        pthread_join(thread, NULL);
    if ((ACT == 13 || ACT == 14) && last < BLOCKS)
        hear(3);
    if (ACT == 1 || (ACT == 13 && last < BLOCKS))
        *(volatile int *)(uintptr_t)16 = 1;
    if (ACT == 14 && last < BLOCKS)
        for (;;)
            pause();
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
