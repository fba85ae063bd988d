/* Puts the last layers around a program with runMode grpc, inside of its sandbox, and becomes it.
 *
 *     supervm-enter SOCKET FILTER DATA TASKS FILE-SIZE [MODE PATH]... -- PROGRAM ARGUMENT...
 *
 * Limits, no memory that becomes executable, Landlock, no exit status that looks like a signal, the seccomp program that the
 * descriptor FILTER holds; then the descriptor at which the host hears of each connect() goes to it over SOCKET. DATA and FILE-SIZE
 * are bytes, TASKS a number, - is no limit; a MODE is one of confine.h. Linked statically: an image need not have a C library, and may
 * have another one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"
#include "control.h"

#define STATUS_FAILED 97 /* The line on standard error says why. */
#define MOST_PATH_BYTES (1u << 17)

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("supervm-enter: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(STATUS_FAILED);
}

static uint64_t number(const char *text)
{
    char *end = NULL;
    if (text && strcmp(text, "-") == 0)
        return UINT64_MAX;
    errno = 0;
    uint64_t value = text ? strtoull(text, &end, 10) : 0;
    if (!text || !*text || *end || errno != 0)
        fail("it is started by supervm_rt only (%s)", text ? text : "nothing");
    return value;
}

static void check(const char *layer)
{
    if (layer)
        fail("%s cannot be put up (%s)", layer, strerror(errno));
}

static void close_all_but(unsigned first, unsigned second)
{
    unsigned low = first < second ? first : second, high = first < second ? second : first;
    if (low > 3)
        syscall(SYS_close_range, 3u, low - 1, 0u);
    if (high > low + 1)
        syscall(SYS_close_range, low + 1, high - 1, 0u);
    syscall(SYS_close_range, high + 1, ~0u, 0u);
}

static void hand_over(int socket, int descriptor)
{
    char byte = 1;
    union {
        char space[CMSG_SPACE(sizeof descriptor)];
        struct cmsghdr header;
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr message = {
        .msg_iov = &(struct iovec){.iov_base = &byte, .iov_len = 1},
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof control.space,
    };
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
    if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
        fail("the host does not hear (%s)", strerror(errno));
}

int main(int argc, char **argv)
{
    static uint8_t filter[BPF_MAXINSNS * sizeof(struct sock_filter) + 1], paths[MOST_PATH_BYTES];
    if (argc < 8)
        fail("it is started by supervm_rt only");
    int socket = (int)number(argv[1]), program = (int)number(argv[2]);
    if (socket < 3 || program < 3 || socket == program)
        fail("it is started by supervm_rt only");
    close_all_but((unsigned)socket, (unsigned)program);
    struct setup setup = {.data_limit = number(argv[3]), .task_limit = number(argv[4]), .file_size_limit = number(argv[5])};
    char **next = argv + 6;
    for (; *next && strcmp(*next, "--") != 0; next += 2) {
        size_t length = next[1] ? strlen(next[1]) : 0;
        if (strlen(*next) != 1 || !length || length + 2 > sizeof paths - setup.paths_bytes)
            fail("it is started by supervm_rt only (%s)", *next);
        paths[setup.paths_bytes] = (uint8_t)**next;
        memcpy(paths + setup.paths_bytes + 1, next[1], length + 1);
        setup.paths_bytes += (uint32_t)length + 2;
    }
    if (!*next || !next[1])
        fail("no program is named");
    ssize_t length = pread(program, filter, sizeof filter, 0);
    if (length < 0)
        fail("the seccomp program: %s", strerror(errno));
    close(program);
    check(confine_process(&setup));
    check(confine_files(&setup, paths));
    check(confine_statuses());
    int listener = -1;
    check(confine_program(filter, (uint32_t)length, &listener));
    hand_over(socket, listener);
    close(listener);
    close(socket);
    execvp(next[1], next + 1);
    fail("%s: %s", next[1], strerror(errno));
}
