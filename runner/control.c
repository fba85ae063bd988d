#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t sending = PTHREAD_MUTEX_INITIALIZER;

/* Also takes the descriptors that come along. */
static bool receive_all(int socket, void *place, size_t length, struct message *message)
{
    uint8_t *next = place;
    while (length) {
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(CONTROL_DESCRIPTORS * sizeof(int))];
        } extra;
        struct iovec part = {.iov_base = next, .iov_len = length};
        struct msghdr request = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &extra, .msg_controllen = sizeof extra};
        ssize_t count = recvmsg(socket, &request, MSG_CMSG_CLOEXEC);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&request); each; each = CMSG_NXTHDR(&request, each)) {
            if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS)
                continue;
            size_t count_here = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            if (count_here > CONTROL_DESCRIPTORS) /* The space is rounded up: one more may fit in it. */
                return false;
            message->descriptor_count = (int)count_here;
            memcpy(message->descriptors, CMSG_DATA(each), (size_t)message->descriptor_count * sizeof(int));
        }
        next += count;
        length -= (size_t)count;
    }
    return true;
}

/* After loading, when no descriptor comes any more: recvmsg is not among the calls that a plugin may make. */
static bool read_all(int socket, void *place, size_t length)
{
    uint8_t *next = place;
    while (length) {
        ssize_t count = read(socket, next, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        next += count;
        length -= (size_t)count;
    }
    return true;
}

bool control_receive(int socket, struct message *message)
{
    static bool set_up;
    memset(message, 0, sizeof *message);
    if (set_up ? !read_all(socket, &message->header, sizeof message->header)
               : !receive_all(socket, &message->header, sizeof message->header, message))
        return false;
    set_up = true;
    if (message->header.length > CONTROL_MAX_BYTES)
        return false;
    message->bytes = calloc(1, (size_t)message->header.length + 1);
    return message->bytes && read_all(socket, message->bytes, message->header.length);
}

static bool write_all(int socket, const void *place, size_t length)
{
    const uint8_t *next = place;
    while (length) {
        ssize_t count = write(socket, next, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        next += count;
        length -= (size_t)count;
    }
    return true;
}

void control_send(int socket, uint32_t kind, int32_t value, const void *bytes, size_t length)
{
    struct control_header header = {.kind = kind, .length = (uint32_t)length, .value = value};
    pthread_mutex_lock(&sending);
    if (write_all(socket, &header, sizeof header))
        write_all(socket, bytes, length);
    pthread_mutex_unlock(&sending);
}
