/* Invariant: what the ring asks of the system is answered here, so that every answer can occur, and no thread is needed.
 *
 * Included before each of the product's files. Memory and mappings are real, counted, and fail on demand; a sleep runs what
 * another thread would do meanwhile; the releaser's thread runs when somebody waits for it.
 */
#ifndef FUZZ_RING_SYSTEM_H
#define FUZZ_RING_SYSTEM_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

void *system_malloc(size_t size);
void *system_calloc(size_t count, size_t size);
void *system_aligned_alloc(size_t alignment, size_t size);
void system_free(void *place);
int system_memfd_create(const char *name, unsigned flags);
int system_ftruncate(int fd, off_t size);
int system_fcntl(int fd, int command, int argument);
void *system_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int system_munmap(void *at, size_t size);
int system_eventfd(unsigned value, int flags);
int system_close(int fd);
ssize_t system_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags);
ssize_t system_write(int fd, const void *bytes, size_t count);
long system_call(long number, const _Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *timeout,
                 const void *unused, int unused_too);
int system_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
int system_thread_join(pthread_t thread, void **result);
int system_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
void *system_memcpy(void *to, const void *from, size_t length);

#ifdef FUZZ_PRODUCT
#define memcpy system_memcpy
#define malloc system_malloc
#define calloc system_calloc
#define aligned_alloc system_aligned_alloc
#define free system_free
#define memfd_create system_memfd_create
#define ftruncate system_ftruncate
#define fcntl system_fcntl
#define mmap system_mmap
#define munmap system_munmap
/* As functions: structures have members of these names. */
#define eventfd(value, flags) system_eventfd(value, flags)
#define close(fd) system_close(fd)
#define preadv2(fd, parts, count, offset, flags) system_preadv2(fd, parts, count, offset, flags)
#define write(fd, bytes, count) system_write(fd, bytes, count)
#define syscall(...) system_call(__VA_ARGS__)
#define pthread_create system_thread_create
#define pthread_join system_thread_join
#define pthread_cond_wait system_cond_wait
#define prctl(...) ((void)0)
#define sched_yield() ((void)0)
#endif

/* ---- the harness's side ------------------------------------------------------------------------------------------------ */

struct system_state {
    unsigned fail_in;       /* The n-th call from now that can fail does; 0: none. */
    bool stuck;             /* The releaser's thread does not come to run. */
    bool maps;              /* Each ring gets mappings of its own. */
    uint64_t rings;         /* What the eventfd holds. */
    size_t allocations;     /* Not freed yet. */
    size_t mappings;        /* Not unmapped yet. */
    size_t descriptors;     /* Not closed yet. */
    uint64_t wakes;         /* Futex wake-ups of any word. */
    void *(*thread)(void *);/* Was created and has not run. */
    void *thread_argument;
    bool thread_exists;     /* Was created and not joined. */
};
extern struct system_state world;

void system_reset(void);
/* Lets the thread run that was created, until it ends. */
void system_run_thread(void);
/* Frees what is still allocated: for a part that gives it up knowingly. */
void system_free_all(void);

/* What the other threads do while the ring's side sleeps on a word: the harness's. */
void other_threads(const _Atomic uint32_t *word);
/* Something was copied from here: what the plugin's process does before the copy is judged. */
void just_copied(const uint8_t *from);
/* What the other threads do while the releaser has nothing to do: it has to be told to end. */
void end_releaser(void);

#define REQUIRE(truth)                                                                                                          \
    do {                                                                                                                        \
        if (!(truth))                                                                                                           \
            require_failed(#truth, __FILE__, __LINE__);                                                                         \
    } while (0)
_Noreturn void require_failed(const char *what, const char *file, int line);

#endif
