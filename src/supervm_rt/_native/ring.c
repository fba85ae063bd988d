#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "supervm/status.h"

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

int ring_create(struct ring *ring, uint64_t capacity)
{
    memset(ring, 0, sizeof *ring);
    if (capacity < RING_MINIMUM_CAPACITY || capacity > RING_MAXIMUM_CAPACITY || (capacity & (capacity - 1)) != 0)
        return EINVAL;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t control = 2 * page;

    int fd = memfd_create("supervm-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return errno;
    uint8_t *area = MAP_FAILED;
    size_t area_bytes = control + 2 * capacity;
    if (ftruncate(fd, (off_t)(control + capacity)) != 0)
        goto failed;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        goto failed;
    area = mmap(NULL, area_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        goto failed;
    if (mmap(area, control + capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        goto failed;
    if (mmap(area + control + capacity, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)control) ==
        MAP_FAILED)
        goto failed;
    close(fd);

    ring->producer = (struct ring_producer_page *)area;
    ring->host = (struct ring_host_page *)(area + page);
    ring->data = area + control;
    ring->capacity = capacity;
    ring->forks = ring_forks;
    ring->area = area;
    ring->area_bytes = area_bytes;
    return 0;

failed:;
    int error = errno;
    if (area != MAP_FAILED)
        munmap(area, area_bytes);
    close(fd);
    return error;
}

void ring_destroy(struct ring *ring)
{
    if (ring->area)
        munmap(ring->area, ring->area_bytes);
    memset(ring, 0, sizeof *ring);
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
