#define _GNU_SOURCE
#include "watch.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

/* What can make blocks appear. Reading is not among them: this plugin would wake itself. */
#define CHANGES (IN_MODIFY | IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_MOVE_SELF)

/* The longest single wait, in milliseconds, where no deadline and no heartbeat asks for a shorter one. */
#define LONGEST_WAIT 60000

bool watch_open(struct watch *watch)
{
    *watch = (struct watch){.inotify_fd = -1, .descriptor = -1};
    watch->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return watch->stop_fd >= 0;
}

void watch_folder(struct watch *watch, const char *path)
{
    if (watch->descriptor >= 0)
        return;
    if (watch->inotify_fd < 0)
        watch->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->inotify_fd >= 0)
        watch->descriptor = inotify_add_watch(watch->inotify_fd, path, CHANGES | IN_ONLYDIR);
    if (watch->descriptor < 0 && !watch->told) {
        watch->told = true;
        host_say(SUPERVM_LOG_INFO, "changes of %s are not announced (%s): it is looked at each second", path, strerror(errno));
    }
}

/* Empties the queue of events; none of them matters by itself. */
static void drain(struct watch *watch)
{
    _Alignas(struct inotify_event) char events[16384];
    ssize_t count;
    while ((count = read(watch->inotify_fd, events, sizeof events)) > 0) {
        for (ssize_t at = 0; at < count;) {
            const struct inotify_event *event = (const struct inotify_event *)(events + at);
            /* Where the folder itself is gone or was moved away, another may take its place. */
            if (event->mask & IN_MOVE_SELF && event->wd == watch->descriptor)
                inotify_rm_watch(watch->inotify_fd, watch->descriptor);
            if (event->mask & (IN_IGNORED | IN_MOVE_SELF) && event->wd == watch->descriptor)
                watch->descriptor = -1;
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
}

static int64_t milliseconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum wake watch_wait(struct watch *watch, int milliseconds)
{
    int64_t deadline = milliseconds < 0 ? INT64_MAX : milliseconds_now() + milliseconds;
    struct pollfd waiting[2] = {{.fd = watch->stop_fd, .events = POLLIN}, {.fd = watch->inotify_fd, .events = POLLIN}};
    for (;;) {
        host_beat();
        int64_t left = deadline == INT64_MAX ? LONGEST_WAIT : deadline - milliseconds_now();
        if (left < 0)
            left = 0;
        int slice = host_longest_wait(left < LONGEST_WAIT ? (int)left : LONGEST_WAIT);
        int ready = poll(waiting, 2, slice);
        if (ready < 0 && errno != EINTR)
            return WAKE_STOP; /* Not possible with two valid descriptors; never spin. */
        if (ready > 0 && waiting[0].revents != 0)
            return WAKE_STOP;
        if (ready > 0) {
            drain(watch);
            return WAKE_CHANGE;
        }
        if (left == 0 || (ready == 0 && slice == left))
            return WAKE_TIME;
    }
}

void watch_stop(struct watch *watch)
{
    const uint64_t one = 1;
    /* Cannot fail: the counter is far from its end. Nothing reads it, so it stays readable. */
    ssize_t written = write(watch->stop_fd, &one, sizeof one);
    (void)written;
}

void watch_close(struct watch *watch)
{
    if (watch->stop_fd >= 0)
        close(watch->stop_fd);
    if (watch->inotify_fd >= 0)
        close(watch->inotify_fd);
    watch->stop_fd = watch->inotify_fd = watch->descriptor = -1;
}
