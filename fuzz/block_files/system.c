/* Invariant: as in system.h; what was opened or allocated is counted. */
#include "system.h"

#include <stdio.h>
#include <string.h>

#define FOLDER_DESCRIPTOR 1000
#define FIRST_DESCRIPTOR 2000
#define SCRATCH_BYTES (1u << 20)

struct system_state world;
/* Given out again each time: a megabyte of fresh memory would cost more than all that is done with it. */
static uint8_t scratch[SCRATCH_BYTES];
static struct dirent entry;

void require_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
    abort();
}

void system_reset(void)
{
    for (int i = 0; i < MOST_FILES; i++) {
        struct file *file = &world.files[i];
        if (file->size > 0)
            memset(file->bytes, 0, file->size < MOST_BYTES ? file->size : MOST_BYTES);
        file->exists = file->directory = file->dangling = false;
        file->size = 0;
        file->inode = (uint64_t)i;
        file->changed = 0;
        snprintf(file->name, sizeof file->name, "blk%05d.dat", i);
    }
    strcpy(world.files[MOST_FILES - 1].name, "xor.dat");
    world.now = INT64_C(1700000000000000000);
    world.fail_in = world.cut_in = 0;
    world.short_reads = false;
    world.listed = world.open = world.allocations = 0;
}

void file_write(struct file *file, uint64_t at, const uint8_t *bytes, size_t count)
{
    if (at > MOST_BYTES || count > MOST_BYTES - at)
        return;
    if (count)
        memcpy(file->bytes + at, bytes, count);
    if (file->size < at + count)
        file->size = at + count;
    file->exists = true;
    file->changed = world.now;
}

void file_resize(struct file *file, uint64_t size)
{
    if (size < file->size && size < MOST_BYTES)
        memset(file->bytes + size, 0, (file->size < MOST_BYTES ? file->size : MOST_BYTES) - size);
    file->size = size;
    file->changed = world.now;
}

static bool fails(int error)
{
    if (world.fail_in == 0 || --world.fail_in != 0)
        return false;
    errno = error;
    return true;
}

static struct file *find(const char *name)
{
    for (int i = 0; i < MOST_FILES; i++)
        if (world.files[i].exists && strcmp(world.files[i].name, name) == 0)
            return &world.files[i];
    errno = ENOENT;
    return NULL;
}

static struct file *opened(int fd)
{
    REQUIRE(fd >= FIRST_DESCRIPTOR && fd < FIRST_DESCRIPTOR + MOST_FILES);
    return &world.files[fd - FIRST_DESCRIPTOR];
}

DIR *system_opendir(const char *path)
{
    if (fails(EACCES))
        return NULL;
    world.listed = 0;
    world.open++;
    return (DIR *)&world;
}

/* In steps of five, so that the order is not that of the names. */
struct dirent *system_readdir(DIR *folder)
{
    static const char *const others[] = {".", "..", "blk0000.dat", "blk00001.dat.old", "blk000001.dat", "blk99999999999.dat",
                                         "blk4294967296.dat", "rev00000.dat", "blk00000x.dat"};
    REQUIRE(folder == (DIR *)&world);
    if (fails(EIO))
        return NULL;
    while (world.listed < MOST_FILES) {
        const struct file *file = &world.files[world.listed++ * 5 % MOST_FILES];
        if (file->exists) {
            strcpy(entry.d_name, file->name);
            return &entry;
        }
    }
    if (world.listed < MOST_FILES + sizeof others / sizeof *others) {
        strcpy(entry.d_name, others[world.listed++ - MOST_FILES]);
        return &entry;
    }
    return NULL;
}

int system_closedir(DIR *folder)
{
    REQUIRE(folder == (DIR *)&world);
    world.open--;
    return 0;
}

int system_openat(int folder, const char *name, int flags)
{
    REQUIRE(folder == FOLDER_DESCRIPTOR && (flags & O_NONBLOCK) && (flags & O_ACCMODE) == O_RDONLY);
    if (fails(EACCES))
        return -1;
    struct file *file = find(name);
    if (!file || file->dangling) {
        errno = ENOENT;
        return -1;
    }
    world.open++;
    return FIRST_DESCRIPTOR + (int)(file - world.files);
}

static void fill(const struct file *file, struct stat *status)
{
    *status = (struct stat){
        .st_mode = file->directory ? S_IFDIR : S_IFREG,
        .st_size = (off_t)file->size,
        .st_ino = file->inode,
        .st_mtim = {.tv_sec = file->changed / 1000000000, .tv_nsec = file->changed % 1000000000},
        .st_ctim = {.tv_sec = file->changed / 1000000000, .tv_nsec = file->changed % 1000000000},
    };
}

int system_fstat(int fd, struct stat *status)
{
    if (fails(EIO))
        return -1;
    fill(opened(fd), status);
    return 0;
}

int system_fstatat(int folder, const char *name, struct stat *status, int flags)
{
    if (fails(EIO))
        return -1;
    struct file *file = find(name);
    if (!file || (file->dangling && !(flags & AT_SYMLINK_NOFOLLOW))) {
        errno = ENOENT;
        return -1;
    }
    fill(file, status);
    return 0;
}

ssize_t system_pread(int fd, void *out, size_t count, off_t offset)
{
    struct file *file = opened(fd);
    REQUIRE(offset >= 0);
    if (world.cut_in != 0 && --world.cut_in == 0)
        file_resize(file, file->size / 2);
    if (fails(EIO))
        return -1;
    if (world.short_reads && count > 3) {
        if (count % 7 == 0) {
            errno = EINTR;
            world.short_reads = false;
            return -1;
        }
        count = count / 2 + 1;
    }
    uint64_t at = (uint64_t)offset;
    if (at >= file->size)
        return 0;
    if (count > file->size - at)
        count = file->size - at;
    size_t stored = at >= MOST_BYTES ? 0 : MOST_BYTES - at < count ? MOST_BYTES - at : count;
    memcpy(out, file->bytes + (stored ? at : 0), stored);
    memset((uint8_t *)out + stored, 0, count - stored);
    return (ssize_t)count;
}

int system_close(int fd)
{
    opened(fd);
    world.open--;
    return 0;
}

int system_clock(clockid_t clock, struct timespec *now)
{
    *now = (struct timespec){.tv_sec = world.now / 1000000000, .tv_nsec = world.now % 1000000000};
    return 0;
}

void *system_malloc(size_t size)
{
    if (fails(ENOMEM))
        return NULL;
    world.allocations++;
    return size == SCRATCH_BYTES ? scratch : malloc(size);
}

void *system_reallocarray(void *place, size_t count, size_t size)
{
    if (fails(ENOMEM))
        return NULL;
    world.allocations += place == NULL;
    return reallocarray(place, count, size);
}

void system_free(void *place)
{
    if (!place)
        return;
    world.allocations--;
    if (place != scratch)
        free(place);
}
