/* Prepares a process for the sandbox and becomes it: what has to be done with the host's rights before they are dropped.
 *
 *     supervm-launch [--user UID GID] [--cgroup FOLDER]... [--read PATH | --write PATH | --image FILE | --show PATH]... -- PROGRAM ARGUMENT...
 *     supervm-launch [...] --descriptor FD -- NAME ARGUMENT...
 *
 * Joins the cgroups; makes each PATH, in order, reachable for the user UID as /tmp/0, /tmp/1, ... in a mount namespace of its own,
 * which goes with its last process; drops to UID and GID with no further groups; executes PROGRAM, or what FD has open, with no
 * environment. Where the host ends, so does the process. Without --user it makes the mount namespace in a user namespace of its own.
 *
 * A PATH that is read belongs to its owner, who alone may read it as a rule (a node writes its files 0600). So it is mounted read-only with its
 * owner mapped to UID. Where the file system cannot do that, the process runs as the owner instead, unless that is root.
 * One that is written belongs to UID already. A FILE is the image of an ext4 file system, as large as its user may write: the folder
 * "files" in it is made for UID, and found as /tmp/N/files. One that is shown is read by everybody, and what is in it can be executed.
 * Nothing else that is mounted here can be executed, and nothing at all be a device.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_PATHS 18 /* That are read, the storage, and what is shown. */
#define STAGE "/tmp"
#define STATUS_FAILED 97 /* The line on standard error says why. */

/* Numbers of kernels newer than the headers that this may be built with. */
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef SYS_fsopen
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#define SET_STRING 1u
#define CREATE 6u

#define IMAGE_SECONDS 5
#define MOST_LOOPS 64 /* Tries to get a loop device that nobody else takes meanwhile. */
#define FILES "files"

enum way { READS, WRITES, IMAGE, SHOWS, NO_WAY };

struct attributes {
    uint64_t set, clear, propagation, userns_fd;
};
#define CONFINED (UINT64_C(2) /* nosuid */ | 4 /* nodev */ | 8 /* noexec */)
#define READ_ONLY UINT64_C(1)
#define SHOWN (UINT64_C(2) /* nosuid */ | 4 /* nodev */ | READ_ONLY)

static struct {
    bool drops;
    uid_t user;
    gid_t group;
    const char *paths[MOST_PATHS];
    enum way ways[MOST_PATHS];
    int path_count;
    const char *owned; /* The path whose owner the process will run as; NULL: none. */
    int descriptor;
} options = {.descriptor = -1};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("supervm-launch: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(STATUS_FAILED);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail("%s: %s", path, strerror(errno));
    close(fd);
}

static void join_cgroup(const char *folder)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/cgroup.procs", folder) >= (int)sizeof path)
        fail("%s: the path is too long", folder);
    write_file(path, "0");
}

static void end_with_host(pid_t host)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != host)
        exit(STATUS_FAILED); /* It ended before the line above. */
}

/* ---- what may be read -------------------------------------------------------------------------------------------------- */

/* A user namespace that maps the owner of a file to the user of the sandbox. -1 with errno. */
static int mapping_of(const struct stat *file)
{
    int ready[2], done[2];
    if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(done, O_CLOEXEC) != 0)
        return -1;
    pid_t child = fork();
    if (child < 0)
        return -1;
    if (child == 0) {
        char byte = unshare(CLONE_NEWUSER) == 0;
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        close(done[1]);
        _exit(read(done[0], &byte, 1) != 0);
    }
    close(ready[1]);
    close(done[0]);
    char made = 0;
    int fd = -1;
    int error = EPERM;
    if (read(ready[0], &made, 1) == 1 && made) {
        char path[64], line[64];
        snprintf(path, sizeof path, "/proc/%d/uid_map", (int)child);
        snprintf(line, sizeof line, "%u %u 1", file->st_uid, options.user);
        write_file(path, line);
        snprintf(path, sizeof path, "/proc/%d/gid_map", (int)child);
        snprintf(line, sizeof line, "%u %u 1", file->st_gid, options.group);
        write_file(path, line);
        snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        error = errno;
    }
    close(ready[0]);
    close(done[1]); /* Lets the child end. */
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    errno = error;
    return fd;
}

static bool set_attributes(int tree, const struct attributes *attributes)
{
    return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, attributes, sizeof *attributes) == 0;
}

static void pause_for(long milliseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

/* A loop device for what fd has open, which goes with its last user. The lock of fd lives as long: two mounts would spoil it. */
static int loop_of(int fd, char *name, size_t size)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    for (int tried = 0; control >= 0 && tried < MOST_LOOPS; tried++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            break;
        snprintf(name, size, "/dev/loop%d", number);
        int loop = open(name, O_RDWR | O_CLOEXEC);
        struct loop_config setting = {.fd = (uint32_t)fd, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
        if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &setting) == 0) {
            close(control);
            return loop;
        }
        int error = errno;
        if (loop >= 0)
            close(loop);
        errno = error;
        if (error != EBUSY)
            break;
    }
    return -1;
}

/* A detached mount of the file system in the image. */
static int mount_image(const char *path)
{
    char device[64];
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited++) { /* The life before may still let go of it. */
        if (errno != EWOULDBLOCK || waited >= IMAGE_SECONDS * 200)
            fail("%s: it is in use (%s)", path, strerror(errno));
        pause_for(5);
    }
    int loop = loop_of(fd, device, sizeof device);
    if (loop < 0)
        fail("%s: no loop device for it (%s)", path, strerror(errno));
    int context = (int)syscall(SYS_fsopen, "ext4", 1 /* close on exec */);
    if (context < 0 || syscall(SYS_fsconfig, context, SET_STRING, "source", device, 0) != 0 ||
        syscall(SYS_fsconfig, context, CREATE, NULL, NULL, 0) != 0)
        fail("%s: it cannot be mounted (%s)", path, strerror(errno));
    int tree = (int)syscall(SYS_fsmount, context, 1 /* close on exec */, (unsigned)CONFINED);
    if (tree < 0)
        fail("%s: it cannot be mounted (%s)", path, strerror(errno));
    close(context);
    close(loop);
    close(fd);
    return tree;
}

/* A detached mount of the path. One that is only read may change the user that the process will run as. */
static int mount_of(const char *path, enum way way)
{
    if (way == IMAGE)
        return mount_image(path);
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct stat file;
    if (tree < 0 || fstat(tree, &file) != 0)
        fail("%s: %s", path, strerror(errno));
    if (way == WRITES || way == SHOWS) {
        struct attributes own = {.set = way == WRITES ? CONFINED : SHOWN};
        if (!set_attributes(tree, &own))
            fail("%s: it cannot be mounted (%s)", path, strerror(errno));
        return tree;
    }
    int mapping = options.drops ? mapping_of(&file) : -1;
    struct attributes mapped = {.set = CONFINED | READ_ONLY | MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)mapping};
    if (mapping >= 0 && set_attributes(tree, &mapped)) {
        close(mapping);
        return tree;
    }
    if (mapping >= 0)
        close(mapping);
    struct attributes plain = {.set = CONFINED | READ_ONLY};
    if (!set_attributes(tree, &plain))
        fail("%s: it cannot be mounted read-only (%s)", path, strerror(errno));
    /* Who keeps it from the sandbox's user, may be asked for once: a process has one user. */
    if (options.drops && file.st_uid != 0 && (file.st_mode & 004) == 0) {
        if (options.owned && options.user != file.st_uid)
            fail("%s and %s belong to different users (%u and %u), are closed to others, and their file systems do not map owners: "
                 "no process can read both; keep one of them where owners can be mapped (ext4, xfs, btrfs), or open it to others",
                 options.owned, path, options.user, file.st_uid);
        if (!options.owned)
            options.owned = path;
        options.user = file.st_uid;
        options.group = file.st_gid;
    }
    return tree;
}

static bool is_folder(int fd)
{
    struct stat file;
    return fstat(fd, &file) == 0 && S_ISDIR(file.st_mode);
}

/* Without the host's rights: where this user is as mighty as in its own, and nowhere else. */
static void enter_user_namespace(void)
{
    char line[64];
    uid_t user = geteuid();
    gid_t group = getegid();
    if (unshare(CLONE_NEWUSER) != 0)
        fail("a user namespace: %s", strerror(errno));
    write_file("/proc/self/setgroups", "deny");
    snprintf(line, sizeof line, "%u %u 1", user, user);
    write_file("/proc/self/uid_map", line);
    snprintf(line, sizeof line, "%u %u 1", group, group);
    write_file("/proc/self/gid_map", line);
}

static void make_files(void)
{
    for (int index = 0; index < options.path_count; index++) {
        char place[64];
        snprintf(place, sizeof place, STAGE "/%d/" FILES, index);
        if (options.ways[index] == IMAGE && ((mkdir(place, 0700) != 0 && errno != EEXIST) ||
                                             lchown(place, options.user, options.group) != 0 || chmod(place, 0700) != 0))
            fail("%s: %s", options.paths[index], strerror(errno));
        snprintf(place, sizeof place, STAGE "/%d", index);
        if (options.owned && options.ways[index] == WRITES && lchown(place, options.user, options.group) != 0)
            fail("%s: %s", options.paths[index], strerror(errno));
    }
}

/* Again, where that changed the user: what was mounted before was for another one. */
static void mount_what_is_read(int *trees)
{
    for (const char *owned = options.owned;; owned = options.owned) {
        for (int index = 0; index < options.path_count; index++)
            if (options.ways[index] == READS)
                trees[index] = mount_of(options.paths[index], READS);
        if (options.owned == owned)
            return;
        for (int index = 0; index < options.path_count; index++)
            if (options.ways[index] == READS)
                close(trees[index]);
    }
}

static void stage_paths(void)
{
    int trees[MOST_PATHS];
    if (!options.drops)
        enter_user_namespace();
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        fail("a mount namespace of its own: %s", strerror(errno));
    mount_what_is_read(trees);
    for (int index = 0; index < options.path_count; index++)
        if (options.ways[index] != READS)
            trees[index] = mount_of(options.paths[index], options.ways[index]);
    if (mount("supervm", STAGE, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=64k") != 0)
        fail("%s: %s", STAGE, strerror(errno));
    for (int index = 0; index < options.path_count; index++) {
        char place[64];
        snprintf(place, sizeof place, STAGE "/%d", index);
        int file = is_folder(trees[index]) ? mkdir(place, 0755) : open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        if (file > 0)
            close(file);
        if (file < 0 || syscall(SYS_move_mount, trees[index], "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) != 0)
            fail("%s: %s", options.paths[index], strerror(errno));
        close(trees[index]);
    }
    make_files();
}

static void check_paths(void)
{
    for (int index = 0; index < options.path_count; index++) {
        char place[64];
        snprintf(place, sizeof place, STAGE "/%d", index);
        if (options.ways[index] == READS && access(place, R_OK) != 0)
            fail("%s: cannot be made readable for the sandbox's user (its file system does not map owners, and it belongs to root)",
                 options.paths[index]);
    }
}

/* ---- the rest ---------------------------------------------------------------------------------------------------------- */

static void drop(void)
{
    if (setgroups(0, NULL) != 0 || setresgid(options.group, options.group, options.group) != 0 ||
        setresuid(options.user, options.user, options.user) != 0)
        fail("dropping to user %u: %s", options.user, strerror(errno));
}

static uint32_t number(const char *text)
{
    char *end;
    unsigned long value = text ? strtoul(text, &end, 10) : 0;
    if (!text || !*text || *end || value > UINT32_MAX - 1)
        fail("%s is not a number", text ? text : "nothing");
    return (uint32_t)value;
}

static enum way way_of(const char *option)
{
    static const char *const names[NO_WAY] = {[READS] = "--read", [WRITES] = "--write", [IMAGE] = "--image", [SHOWS] = "--show"};
    for (enum way way = READS; way < NO_WAY; way++)
        if (strcmp(option, names[way]) == 0)
            return way;
    return NO_WAY;
}

int main(int argc, char **argv)
{
    enum way way;
    pid_t host = getppid();
    (void)argc;
    end_with_host(host);
    umask(022);
    char **next = argv + 1;
    for (; *next && strcmp(*next, "--") != 0; next++) {
        if (strcmp(*next, "--user") == 0) {
            options.drops = true;
            options.user = number(*++next);
            options.group = number(*++next);
        } else if (strcmp(*next, "--cgroup") == 0 && next[1]) {
            join_cgroup(*++next);
        } else if (next[1] && options.path_count < MOST_PATHS &&
                   (way = way_of(*next)) != NO_WAY) {
            options.ways[options.path_count] = way;
            options.paths[options.path_count++] = *++next;
        } else if (strcmp(*next, "--descriptor") == 0) {
            options.descriptor = (int)number(*++next);
        } else {
            fail("it is started by supervm_rt only (%s)", *next);
        }
    }
    if (!*next || !next[1])
        fail("no program is named");
    char **program = next + 1;
    if (options.path_count)
        stage_paths();
    if (options.drops) {
        drop();
        check_paths();
    }
    end_with_host(host); /* A change of user or namespace may have taken it back. */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* What the host may, its plugin may not. */
    if (chdir("/") != 0)
        fail("/: %s", strerror(errno));
    char *nothing[] = {NULL};
    if (options.descriptor >= 0)
        syscall(SYS_execveat, options.descriptor, "", program, nothing, AT_EMPTY_PATH);
    else
        execve(program[0], program, nothing);
    fail("%s: %s", program[0], strerror(errno));
}
