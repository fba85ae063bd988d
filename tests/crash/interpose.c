/* Stands between a process and the files of one folder: counts the calls that change them or make them durable, and does something
 * at the n-th. Loaded with LD_PRELOAD; asleep until crash_arm.
 *
 * crash_arm reads the environment:
 *   SUPERVM_CRASH_FOLDER   the folder whose files count; an absolute path without links
 *   SUPERVM_CRASH_AT       n, from 1; 0: nothing happens, the calls are only counted
 *   SUPERVM_CRASH_ACTION   kill        SIGKILL before the call
 *                          kill-half   SIGKILL after the first half of a write was made; before any other call
 *                          kill-after  SIGKILL after the call
 *                          enospc eio  the call fails
 *                          enospc-on eio-on   it and all after it fail, but for removals after it
 *                          short       a write makes only its first half, and says so; other calls are made
 *   SUPERVM_CRASH_JOURNAL  a file that takes down every call with its bytes, for power.py
 *
 * Syncs are counted and not made: SIGKILL leaves what was written whether it was synced or not, and power.py works from the
 * journal. What a process writes through a mapping (SQLite's -shm) is not seen; SQLite makes it anew after a failure of the machine.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NOTHING, KILL, KILL_HALF, KILL_AFTER, ENOSPC_ONCE, ENOSPC_ON, EIO_ONCE, EIO_ON, SHORT };

static const char *const action_names[] = {"",       "kill", "kill-half", "kill-after", "enospc", "enospc-on",
                                           "eio",    "eio-on", "short"};

/* Shared with the processes that are forked from the one that called crash_state: it can be read when one of them was killed. */
struct crash_state {
    uint64_t calls;        /* since crash_arm */
    uint64_t fired;        /* how many of them were not made as they were asked for */
    uint64_t acknowledged; /* the last number given to crash_acknowledge */
    char what[240];        /* the first call that fired, else the last one */
};

/* A record of the journal; the path or paths follow, then the bytes. Read by power.py. */
struct record {
    uint8_t kind; /* C create, W write, T truncate, S sync, D sync of the folder, R rename, U unlink, A acknowledged */
    uint8_t padding[7];
    uint64_t inode;
    uint64_t offset; /* T: the size; A: the number */
    uint64_t path_length;
    uint64_t other_length;
    uint64_t length;
};

static struct crash_state *state;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int armed;
static char folder[PATH_MAX];
static size_t folder_length;
static uint64_t at;
static enum action action;
static int journal = -1;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

/* A new one, all zero. */
struct crash_state *crash_state(void)
{
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (state == MAP_FAILED)
        abort();
    return state;
}

void crash_disarm(void)
{
    armed = 0;
    if (journal >= 0)
        close(journal);
    journal = -1;
}

/* After crash_state. 0, or -1 where the environment does not say what to do. */
int crash_arm(void)
{
    const char *place = getenv("SUPERVM_CRASH_FOLDER"), *number = getenv("SUPERVM_CRASH_AT");
    const char *name = getenv("SUPERVM_CRASH_ACTION"), *record_to = getenv("SUPERVM_CRASH_JOURNAL");
    crash_disarm();
    if (place == NULL || strlen(place) >= sizeof folder)
        return -1;
    strcpy(folder, place);
    folder_length = strlen(folder);
    at = number == NULL ? 0 : strtoull(number, NULL, 10);
    action = NOTHING;
    if (at != 0) {
        for (size_t i = 1; i < sizeof action_names / sizeof *action_names; i++)
            if (name != NULL && strcmp(name, action_names[i]) == 0)
                action = (enum action)i;
        if (action == NOTHING)
            return -1;
    }
    if (record_to != NULL && *record_to != '\0') {
        journal = open(record_to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (journal < 0)
            return -1;
    }
    memset(state, 0, sizeof *state);
    armed = 1;
    return 0;
}

static _Noreturn void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* ---- which calls count ---- */

static int below_folder(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == '\0');
}

static int counts_path(const char *path)
{
    return armed && path != NULL && below_folder(path);
}

static int counts_descriptor(int descriptor, char *path)
{
    char link[40];
    if (!armed)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return below_folder(path);
}

/* A path from a folder's descriptor counts with its folder (shutil.rmtree removes so). */
static int counts_at(int directory, const char *path)
{
    char of_folder[PATH_MAX];
    if (path == NULL || path[0] == '/' || directory == AT_FDCWD)
        return counts_path(path);
    return counts_descriptor(directory, of_folder);
}

/* ---- the journal ---- */

static void put(const void *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = REAL(write)(journal, bytes, length);
        if (written <= 0)
            abort();
        bytes = (const char *)bytes + written;
        length -= (size_t)written;
    }
}

static void note(char kind, uint64_t inode, uint64_t offset, const char *path, const char *other, const void *bytes, size_t length)
{
    if (journal < 0)
        return;
    struct record record = {.kind = (uint8_t)kind, .inode = inode, .offset = offset, .length = length};
    record.path_length = path == NULL ? 0 : strlen(path);
    record.other_length = other == NULL ? 0 : strlen(other);
    put(&record, sizeof record);
    put(path, record.path_length);
    put(other, record.other_length);
    put(bytes, length);
}

static uint64_t inode_of(int descriptor)
{
    struct stat status;
    return fstat(descriptor, &status) == 0 ? (uint64_t)status.st_ino : 0;
}

void crash_acknowledge(uint64_t number)
{
    pthread_mutex_lock(&turn);
    state->acknowledged = number;
    note('A', 0, number, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&turn);
}

/* ---- what happens ---- */

/* Counts a call. The answer: NOTHING, or what its maker has to do; an error is set in errno. Holds the turn until finish. */
static enum action decide(const char *call, const char *path, size_t length)
{
    pthread_mutex_lock(&turn);
    uint64_t number = ++state->calls;
    int later = action == ENOSPC_ON || action == EIO_ON;
    /* What is full or broken still lets go of files. */
    int now = at != 0 && (number == at || (later && number > at && strcmp(call, "unlink") != 0));
    if (state->fired == 0)
        snprintf(state->what, sizeof state->what, "%s %s %zu", call, below_folder(path) ? path + folder_length : path, length);
    if (!now)
        return NOTHING;
    state->fired++;
    if (action == KILL || (action == KILL_HALF && length == 0))
        die();
    if (action == ENOSPC_ONCE || action == ENOSPC_ON)
        errno = ENOSPC;
    if (action == EIO_ONCE || action == EIO_ON)
        errno = EIO;
    return action;
}

static int fails(enum action what)
{
    return what == ENOSPC_ONCE || what == ENOSPC_ON || what == EIO_ONCE || what == EIO_ON;
}

static void finish(enum action what)
{
    if (what == KILL_HALF || what == KILL_AFTER)
        die();
    int error = errno;
    pthread_mutex_unlock(&turn);
    errno = error;
}

/* ---- writes ---- */

/* offset < 0: where the file stands. */
static ssize_t any_write(int descriptor, const void *bytes, size_t length, off_t offset)
{
    char path[PATH_MAX];
    if (!counts_descriptor(descriptor, path))
        return offset < 0 ? REAL(write)(descriptor, bytes, length) : REAL(pwrite)(descriptor, bytes, length, offset);
    enum action what = decide("write", path, length);
    ssize_t written = -1;
    if (!fails(what)) {
        off_t place = offset < 0 ? lseek(descriptor, 0, SEEK_CUR) : offset;
        size_t part = (what == KILL_HALF || what == SHORT) && length > 1 ? length / 2 : length;
        written = offset < 0 ? REAL(write)(descriptor, bytes, part) : REAL(pwrite)(descriptor, bytes, part, offset);
        if (written > 0)
            note('W', inode_of(descriptor), (uint64_t)place, path, NULL, bytes, (size_t)written);
    }
    finish(what);
    return written;
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    return any_write(descriptor, bytes, length, -1);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return any_write(descriptor, bytes, length, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset)
{
    return any_write(descriptor, bytes, length, offset);
}

/* Of several pieces the first that is not empty is written: a short write, which every caller has to expect. */
static ssize_t any_writev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    for (int i = 0; i < count; i++)
        if (pieces[i].iov_len > 0)
            return any_write(descriptor, pieces[i].iov_base, pieces[i].iov_len, offset);
    return 0;
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    char path[PATH_MAX];
    return counts_descriptor(descriptor, path) ? any_writev(descriptor, pieces, count, -1) : REAL(writev)(descriptor, pieces, count);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    char path[PATH_MAX];
    return counts_descriptor(descriptor, path) ? any_writev(descriptor, pieces, count, offset)
                                               : REAL(pwritev)(descriptor, pieces, count, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off64_t offset)
{
    return pwritev(descriptor, pieces, count, offset);
}

/* ---- the rest that changes a file ---- */

int ftruncate(int descriptor, off_t size)
{
    char path[PATH_MAX];
    if (!counts_descriptor(descriptor, path))
        return REAL(ftruncate)(descriptor, size);
    enum action what = decide("ftruncate", path, 0);
    int answer = fails(what) ? -1 : REAL(ftruncate)(descriptor, size);
    if (answer == 0)
        note('T', inode_of(descriptor), (uint64_t)size, path, NULL, NULL, 0);
    finish(what);
    return answer;
}

int ftruncate64(int descriptor, off64_t size)
{
    return ftruncate(descriptor, size);
}

/* No file system has to offer it; SQLite then writes instead. */
int posix_fallocate(int descriptor, off_t offset, off_t length)
{
    char path[PATH_MAX];
    return counts_descriptor(descriptor, path) ? EOPNOTSUPP : REAL(posix_fallocate)(descriptor, offset, length);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t length)
{
    return posix_fallocate(descriptor, offset, length);
}

static int any_sync(int descriptor, const char *name)
{
    char path[PATH_MAX];
    if (!counts_descriptor(descriptor, path))
        return strcmp(name, "fsync") == 0 ? REAL(fsync)(descriptor) : REAL(fdatasync)(descriptor);
    enum action what = decide(name, path, 0);
    int answer = fails(what) ? -1 : 0;
    if (answer == 0)
        note(path[folder_length] == '\0' ? 'D' : 'S', inode_of(descriptor), 0, path, NULL, NULL, 0);
    finish(what);
    return answer;
}

int fsync(int descriptor)
{
    return any_sync(descriptor, "fsync");
}

int fdatasync(int descriptor)
{
    return any_sync(descriptor, "fdatasync");
}

/* ---- names ---- */

static int any_open(int directory, const char *path, int flags, mode_t mode)
{
    struct stat status;
    int makes = (flags & O_CREAT) != 0 && counts_at(directory, path) && fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) != 0;
    if (!makes && (flags & O_TRUNC) != 0 && counts_at(directory, path))
        abort(); /* nobody does it; the journal would need to know */
    if (!makes)
        return REAL(openat)(directory, path, flags, mode);
    enum action what = decide("create", path, 0);
    int descriptor = fails(what) ? -1 : REAL(openat)(directory, path, flags, mode);
    if (descriptor >= 0)
        note('C', inode_of(descriptor), 0, path, NULL, NULL, 0);
    finish(what);
    return descriptor;
}

#define MODE(flags, mode)                                                                                                            \
    do {                                                                                                                             \
        if (((flags) & (O_CREAT | O_TMPFILE)) != 0) {                                                                                \
            va_list more;                                                                                                            \
            va_start(more, flags);                                                                                                   \
            mode = va_arg(more, mode_t);                                                                                             \
            va_end(more);                                                                                                            \
        }                                                                                                                            \
    } while (0)

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE(flags, mode);
    return any_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE(flags, mode);
    return any_open(AT_FDCWD, path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE(flags, mode);
    return any_open(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE(flags, mode);
    return any_open(directory, path, flags, mode);
}

static int any_rename(int old_directory, const char *old, int new_directory, const char *new, unsigned int flags)
{
    if (!counts_at(old_directory, old) && !counts_at(new_directory, new))
        return REAL(renameat2)(old_directory, old, new_directory, new, flags);
    enum action what = decide("rename", new, 0);
    int answer = fails(what) ? -1 : REAL(renameat2)(old_directory, old, new_directory, new, flags);
    if (answer == 0)
        note('R', 0, 0, old, new, NULL, 0);
    finish(what);
    return answer;
}

int rename(const char *old, const char *new)
{
    return any_rename(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int renameat(int old_directory, const char *old, int new_directory, const char *new)
{
    return any_rename(old_directory, old, new_directory, new, 0);
}

int renameat2(int old_directory, const char *old, int new_directory, const char *new, unsigned int flags)
{
    return any_rename(old_directory, old, new_directory, new, flags);
}

static int any_unlink(int directory, const char *path, int flags)
{
    struct stat status;
    if (!counts_at(directory, path) || fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return REAL(unlinkat)(directory, path, flags); /* nothing that could be removed: nothing to count */
    enum action what = decide("unlink", path, 0);
    int answer = fails(what) ? -1 : REAL(unlinkat)(directory, path, flags);
    if (answer == 0)
        note('U', 0, 0, path, NULL, NULL, 0);
    finish(what);
    return answer;
}

int unlink(const char *path)
{
    return any_unlink(AT_FDCWD, path, 0);
}

int unlinkat(int directory, const char *path, int flags)
{
    return any_unlink(directory, path, flags);
}

int rmdir(const char *path)
{
    return any_unlink(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    if (!counts_path(path))
        return REAL(mkdir)(path, mode);
    enum action what = decide("mkdir", path, 0);
    int answer = fails(what) ? -1 : REAL(mkdir)(path, mode);
    finish(what);
    return answer;
}

/* Nothing of ours makes links; what would has to be thought of here. */
int link(const char *old, const char *new)
{
    if (counts_path(new))
        abort();
    return REAL(link)(old, new);
}
