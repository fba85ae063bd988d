/* Invariant: as in system.h: everything that was taken is counted, and what was never given back can be told. */
#include "system.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>

#define FALSE_DESCRIPTOR 1000
#define FALSE_HOST 2000
#define MOST_ALLOCATIONS 4096
#define PAGE 4096

struct system_state world;
static void *allocated[MOST_ALLOCATIONS];

void require_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

void system_reset(void)
{
    memset(&world, 0, sizeof world);
}

static bool fails(void)
{
    return world.fail_in != 0 && --world.fail_in == 0;
}

static void *keep(void *place)
{
    if (place) {
        REQUIRE(world.allocations < MOST_ALLOCATIONS);
        allocated[world.allocations++] = place;
    }
    return place;
}

void *system_malloc(size_t size)
{
    return fails() ? NULL : keep(malloc(size));
}

void *system_memcpy(void *to, const void *from, size_t length)
{
    memcpy(to, from, length);
    just_copied(from);
    return to;
}

void *system_calloc(size_t count, size_t size)
{
    return fails() ? NULL : keep(calloc(count, size));
}

void *system_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : keep(aligned_alloc(alignment, size));
}

void system_free(void *place)
{
    if (!place)
        return;
    size_t i = world.allocations;
    while (i > 0 && allocated[i - 1] != place)
        i--;
    if (i > 0)
        allocated[i - 1] = allocated[--world.allocations];
    free(place); /* Where it is none of ours, the sanitizer says so. */
}

void system_free_all(void)
{
    while (world.allocations > 0)
        free(allocated[--world.allocations]);
}

/* Mapping a ring costs more than all that happens in it: unless world.maps is set, mappings made before are given out again,
 * zeroed, where what is asked for is what they are. */
struct area {
    uint8_t *at;
    size_t size;
    bool used;
};
static struct area areas[2];

/* The producer's memfd of an area; the host's words lie behind its data, and their memfd is all the same. */
static bool is_area(int fd)
{
    return fd > FALSE_DESCRIPTOR && fd < FALSE_HOST;
}

int system_memfd_create(const char *name, unsigned flags)
{
    if (fails()) {
        errno = EMFILE;
        return -1;
    }
    world.descriptors++;
    if (!world.maps && strcmp(name, "supervm-ring-host") == 0)
        return FALSE_HOST;
    for (int i = 0; i < 2 && !world.maps; i++)
        if (!areas[i].used)
            return FALSE_DESCRIPTOR + 1 + i;
    return memfd_create(name, flags);
}

static uint8_t *reserve(size_t size)
{
    uint8_t *area = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(area != MAP_FAILED);
    return area + PAGE;
}

static void make_area(struct area *area, size_t size)
{
    int fd = memfd_create("area", MFD_CLOEXEC);
    size_t data = (size - 2 * PAGE) / 2;
    REQUIRE(fd >= 0 && ftruncate(fd, (off_t)(2 * PAGE + data)) == 0);
    area->at = reserve(size);
    area->size = size;
    uint8_t *again = area->at + PAGE + data;
    REQUIRE(mmap(area->at, PAGE + data, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == area->at);
    REQUIRE(mmap(again, data, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, PAGE) == again);
    REQUIRE(mmap(again + data, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)(PAGE + data)) == again + data);
    close(fd);
}

int system_ftruncate(int fd, off_t size)
{
    if (fails()) {
        errno = ENOSPC;
        return -1;
    }
    if (fd == FALSE_HOST) {
        REQUIRE(size == PAGE);
        return 0;
    }
    if (!is_area(fd))
        return ftruncate(fd, size);
    struct area *area = &areas[fd - FALSE_DESCRIPTOR - 1];
    if (!area->at)
        make_area(area, 2 * (size_t)size);
    REQUIRE(area->size == 2 * (size_t)size);
    return 0;
}

int system_fcntl(int fd, int command, int argument)
{
    if (fails()) {
        errno = EPERM;
        return -1;
    }
    return fd > FALSE_DESCRIPTOR ? 0 : fcntl(fd, command, argument);
}

/* A reservation gets a page on either side that nobody may touch. */
void *system_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (!at) {
        world.mappings++;
        for (int i = 0; i < 2 && !world.maps; i++) {
            if (areas[i].at && !areas[i].used && areas[i].size == size) {
                areas[i].used = true;
                return areas[i].at;
            }
        }
        return reserve(size);
    }
    if (fd == FALSE_HOST) {
        const struct area *area = &areas[0];
        while (!area->used || (uint8_t *)at != area->at + area->size - PAGE)
            REQUIRE(++area < areas + 2);
        REQUIRE(size == PAGE && offset == 0);
        return at;
    }
    if (!is_area(fd))
        return mmap(at, size, protection, flags, fd, offset);
    const struct area *area = &areas[fd - FALSE_DESCRIPTOR - 1];
    size_t data = (area->size - 2 * PAGE) / 2;
    REQUIRE(area->used && protection == (PROT_READ | PROT_WRITE) && flags == (MAP_SHARED | MAP_FIXED));
    if (offset == 0)
        REQUIRE(at == area->at && size == PAGE + data);
    else
        REQUIRE(at == area->at + PAGE + data && size == data && offset == PAGE);
    return at;
}

int system_munmap(void *at, size_t size)
{
    world.mappings--;
    for (int i = 0; i < 2; i++) {
        if (areas[i].used && areas[i].at == at) {
            REQUIRE(areas[i].size == size);
            memset(at, 0, PAGE + (size - 2 * PAGE) / 2);
            memset((uint8_t *)at + size - PAGE, 0, PAGE);
            areas[i].used = false;
            return 0;
        }
    }
    return munmap((uint8_t *)at - PAGE, size + 2 * PAGE);
}

int system_eventfd(unsigned value, int flags)
{
    if (fails()) {
        errno = EMFILE;
        return -1;
    }
    world.descriptors++;
    return FALSE_DESCRIPTOR;
}

int system_close(int fd)
{
    world.descriptors--;
    return fd >= FALSE_DESCRIPTOR ? 0 : close(fd);
}

ssize_t system_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    REQUIRE(fd == FALSE_DESCRIPTOR && count == 1 && parts->iov_len == sizeof world.rings && offset == -1 && flags == RWF_NOWAIT);
    if (world.rings == 0) {
        errno = EAGAIN;
        return -1;
    }
    memcpy(parts->iov_base, &world.rings, sizeof world.rings);
    world.rings = 0;
    return (ssize_t)parts->iov_len;
}

ssize_t system_write(int fd, const void *bytes, size_t count)
{
    uint64_t more;
    REQUIRE(fd == FALSE_DESCRIPTOR && count == sizeof more);
    memcpy(&more, bytes, sizeof more);
    world.rings += more;
    return (ssize_t)count;
}

void system_run_thread(void)
{
    void *(*run)(void *) = world.thread;
    world.thread = NULL;
    if (run)
        run(world.thread_argument);
}

long system_call(long number, const _Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *timeout,
                 const void *unused, int unused_too)
{
    REQUIRE(number == SYS_futex);
    if (operation == FUTEX_WAKE) {
        world.wakes++;
        return 0;
    }
    REQUIRE(operation == FUTEX_WAIT);
    if (atomic_load(word) != value) {
        errno = EAGAIN;
        return -1;
    }
    if (!timeout)
        other_threads(word);
    else if (!world.stuck)
        system_run_thread(); /* Only who waits for the releaser's end has a deadline. */
    return 0;
}

int system_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    if (fails())
        return EAGAIN;
    REQUIRE(!world.thread_exists);
    world.thread = run;
    world.thread_argument = argument;
    world.thread_exists = true;
    *thread = pthread_self();
    return 0;
}

int system_thread_join(pthread_t thread, void **result)
{
    REQUIRE(world.thread_exists && !world.thread);
    world.thread_exists = false;
    return 0;
}

int system_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    end_releaser();
    return 0;
}
