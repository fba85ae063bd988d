#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "supervm/status.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define PREFETCH_BYTES 4096

/* How often this process was forked off another: a ring of the parent's is then told from one of its own. */
uint32_t ring_forks;

static void count_fork(void)
{
    ring_forks++;
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

/* Maps both memfds into one area. 0, or an errno. */
static int map_area(struct ring *ring, uint64_t capacity, int producer_fd, int host_fd, int host_protection)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t area_bytes = 2 * page + 2 * capacity;
    uint8_t *area = mmap(NULL, area_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return errno;
    const int shared = MAP_SHARED | MAP_FIXED;
    const int writable = PROT_READ | PROT_WRITE;
    uint8_t *host = area + page + 2 * capacity;
    if (mmap(area, page + capacity, writable, shared, producer_fd, 0) == MAP_FAILED ||
        mmap(area + page + capacity, capacity, writable, shared, producer_fd, (off_t)page) == MAP_FAILED ||
        mmap(host, page, host_protection, shared, host_fd, 0) == MAP_FAILED) {
        int error = errno;
        munmap(area, area_bytes);
        return error;
    }
    ring->producer = (struct ring_producer_page *)area;
    ring->host = (struct ring_host_page *)host;
    ring->data = area + page;
    ring->capacity = capacity;
    ring->forks = ring_forks;
    ring->area = area;
    ring->area_bytes = area_bytes;
    return 0;
}

/* A memfd whose size never changes. -1 with errno. */
static int make_memory(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static bool is_capacity(uint64_t capacity)
{
    return capacity >= RING_MINIMUM_CAPACITY && capacity <= RING_MAXIMUM_CAPACITY && (capacity & (capacity - 1)) == 0;
}

static void clear(struct ring *ring)
{
    memset(ring, 0, sizeof *ring);
    ring->producer_fd = ring->host_fd = -1;
}

int ring_create(struct ring *ring, uint64_t capacity)
{
    clear(ring);
    if (!is_capacity(capacity))
        return EINVAL;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    ring->producer_fd = make_memory("supervm-ring", page + capacity);
    ring->host_fd = ring->producer_fd < 0 ? -1 : make_memory("supervm-ring-host", page);
    int error = ring->host_fd < 0 ? errno : map_area(ring, capacity, ring->producer_fd, ring->host_fd, PROT_READ | PROT_WRITE);
    /* From here on nobody gets another writable mapping of the host's words. */
    if (!error && (fcntl(ring->host_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0 ||
                   fcntl(ring->producer_fd, F_ADD_SEALS, F_SEAL_SEAL) != 0))
        error = errno;
    if (error) {
        ring_close_fds(ring);
        ring_destroy(ring);
    }
    return error;
}

int ring_attach(struct ring *ring, uint64_t capacity, int producer_fd, int host_fd)
{
    clear(ring);
    return is_capacity(capacity) ? map_area(ring, capacity, producer_fd, host_fd, PROT_READ) : EINVAL;
}

void ring_close_fds(struct ring *ring)
{
    if (ring->producer_fd >= 0)
        close(ring->producer_fd);
    if (ring->host_fd >= 0)
        close(ring->host_fd);
    ring->producer_fd = ring->host_fd = -1;
}

void ring_destroy(struct ring *ring)
{
    if (!ring->area)
        return;
    munmap(ring->area, ring->area_bytes);
    ring_close_fds(ring);
    clear(ring);
}

static bool has_room(struct ring *ring, uint64_t length)
{
    if (ring->capacity - (ring->head - ring->known_tail) >= length)
        return true;
    ring->known_tail = atomic_load_explicit(&ring->host->tail, memory_order_acquire);
    return ring->capacity - (ring->head - ring->known_tail) >= length;
}

static int32_t wait_for_room(struct ring *ring, uint64_t length, const struct doorbell *bell)
{
    struct ring_producer_page *mine = ring->producer;
    int32_t status = SUPERVM_OK;
    atomic_fetch_add_explicit(&mine->waits, 1, memory_order_relaxed);
    for (;;) {
        uint32_t sequence = atomic_load_explicit(&ring->host->space_sequence, memory_order_acquire);
        atomic_store_explicit(&mine->waiting, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (ring_stopped(ring)) {
            status = SUPERVM_STOPPING;
            break;
        }
        if (has_room(ring, length))
            break;
        doorbell_ring(bell);
        futex_wait(&ring->host->space_sequence, sequence, -1);
    }
    atomic_store_explicit(&mine->waiting, 0, memory_order_relaxed);
    return status;
}

int32_t ring_claim(struct ring *ring, uint64_t length, bool wait, const struct doorbell *bell, uint8_t **record)
{
    if (!has_room(ring, length)) {
        atomic_store_explicit(&ring->producer->wanted, length, memory_order_relaxed);
        ring->asked = true;
        int32_t status = SUPERVM_WOULD_BLOCK;
        if (wait)
            status = wait_for_room(ring, length, bell);
        else
            doorbell_ring_fenced(bell);
        if (status != SUPERVM_OK)
            return status;
    }
    if (ring->asked) {
        ring->asked = false;
        atomic_store_explicit(&ring->producer->wanted, 0, memory_order_relaxed);
    }
    *record = ring_at(ring, ring->head);
    return SUPERVM_OK;
}

#if defined(__x86_64__)
__attribute__((target("prfchw")))
#endif
void ring_publish(struct ring *ring, uint64_t length)
{
    ring->head += length;
    atomic_store_explicit(&ring->producer->head, ring->head, memory_order_release);
    /* The lines ahead were last in the consumer's cache. Asking for them now hides the way they have to come. */
    uint64_t ahead = length < PREFETCH_BYTES ? length : PREFETCH_BYTES;
    for (uint64_t offset = 0; offset < ahead; offset += RING_ALIGNMENT)
        __builtin_prefetch(ring_at(ring, ring->head + PREFETCH_BYTES + offset), 1);
}

bool ring_look(const struct ring *ring, uint64_t *head)
{
    uint64_t claimed = atomic_load_explicit(&ring->producer->head, memory_order_acquire);
    if (claimed - ring->tail > ring->capacity || claimed - ring->tail < ring->read_position - ring->tail ||
        claimed % RING_ALIGNMENT != 0)
        return false;
    *head = claimed;
    return true;
}

void ring_free(struct ring *ring, uint64_t position)
{
    ring->tail = position;
    if (!ring_is_mine(ring))
        return;
    atomic_store_explicit(&ring->host->tail, position, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->producer->waiting, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_release);
        futex_wake_all(&ring->host->space_sequence);
    }
}

void ring_stop(struct ring *ring)
{
    if (!ring_is_mine(ring))
        return;
    atomic_store_explicit(&ring->host->stop, 1, memory_order_seq_cst);
    atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_seq_cst);
    futex_wake_all(&ring->host->space_sequence);
}
