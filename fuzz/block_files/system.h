/* Invariant: the plugin sees a folder that exists in this program only, in which everything can happen.
 *
 * Included before each of the plugin's files.
 */
#ifndef FUZZ_BLOCK_FILES_SYSTEM_H
#define FUZZ_BLOCK_FILES_SYSTEM_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

DIR *system_opendir(const char *path);
struct dirent *system_readdir(DIR *folder);
int system_closedir(DIR *folder);
int system_openat(int folder, const char *name, int flags);
int system_fstat(int fd, struct stat *status);
int system_fstatat(int folder, const char *name, struct stat *status, int flags);
ssize_t system_pread(int fd, void *out, size_t count, off_t offset);
int system_close(int fd);
int system_clock(clockid_t clock, struct timespec *now);
void *system_malloc(size_t size);
void *system_reallocarray(void *place, size_t count, size_t size);
void system_free(void *place);

#ifdef FUZZ_PRODUCT
#define opendir(path) system_opendir(path)
#define readdir(folder) system_readdir(folder)
#define closedir(folder) system_closedir(folder)
#define dirfd(folder) 1000
#define openat(folder, name, flags) system_openat(folder, name, flags)
#define fstat(fd, status) system_fstat(fd, status)
#define fstatat(folder, name, status, flags) system_fstatat(folder, name, status, flags)
#define pread(fd, out, count, offset) system_pread(fd, out, count, offset)
#define close(fd) system_close(fd)
#define clock_gettime(clock, now) system_clock(clock, now)
#define malloc(size) system_malloc(size)
#define reallocarray(place, count, size) system_reallocarray(place, count, size)
#define free(place) system_free(place)
#endif

/* ---- the harness's side ------------------------------------------------------------------------------------------------ */

#define MOST_FILES 12
#define MOST_BYTES (1 << 15) /* Of one file; what lies behind them is zero. */

struct file {
    char name[24];
    bool exists, directory, dangling;
    uint64_t size, inode;
    int64_t changed; /* Nanoseconds. */
    uint8_t bytes[MOST_BYTES];
};

struct system_state {
    struct file files[MOST_FILES]; /* The last one is xor.dat. */
    int64_t now;
    unsigned fail_in;  /* The n-th call from now that can fail does; 0: none. */
    unsigned cut_in;   /* Before the n-th read from now its file is cut to half its length; 0: never. */
    bool short_reads;  /* A read gives less than was asked for, and is interrupted now and then. */
    size_t listed;     /* Where the listing is. */
    size_t open;       /* Descriptors and folders that are not closed yet. */
    size_t allocations;
};
extern struct system_state world;

void system_reset(void);
void file_write(struct file *file, uint64_t at, const uint8_t *bytes, size_t count);
void file_resize(struct file *file, uint64_t size);

#define REQUIRE(truth)                                                                                                          \
    do {                                                                                                                        \
        if (!(truth))                                                                                                           \
            require_failed(#truth, __FILE__, __LINE__);                                                                         \
    } while (0)
_Noreturn void require_failed(const char *what, const char *file, int line);

#endif
