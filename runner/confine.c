#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Numbers of kernels newer than the headers that this may be built with. */
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define OPEN_FILES 256
#define STACK_BYTES (UINT64_C(8) << 20)

static bool limit(int resource, uint64_t most)
{
    rlim_t value = most == UINT64_MAX ? RLIM_INFINITY : (rlim_t)most;
    struct rlimit present;
    if (getrlimit(resource, &present) != 0)
        return false;
    if (present.rlim_max != RLIM_INFINITY && (value == RLIM_INFINITY || value > present.rlim_max))
        value = present.rlim_max; /* The host itself lives under a stricter one. */
    struct rlimit wanted = {.rlim_cur = value, .rlim_max = value};
    return setrlimit(resource, &wanted) == 0;
}

/* Those that a host was given to hand on (ambient, inheritable) too: bubblewrap drops them, and nobody does without it. */
static bool drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capset, &header, none) == 0;
}

const char *confine_process(const struct setup *setup)
{
    if (!drop_capabilities())
        return "the loss of capabilities";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return "no_new_privs";
    if (prctl(PR_SET_DUMPABLE, setup->flags & SETUP_MEASURED ? 1 : 0, 0, 0, 0) != 0)
        return "not dumpable";
    if (!limit(RLIMIT_DATA, setup->data_limit))
        return "RLIMIT_DATA";
    if (!limit(RLIMIT_STACK, STACK_BYTES)) /* RLIMIT_DATA does not count it. */
        return "RLIMIT_STACK";
    if (!limit(RLIMIT_NPROC, setup->task_limit))
        return "RLIMIT_NPROC";
    if (!limit(RLIMIT_FSIZE, setup->file_size_limit))
        return "RLIMIT_FSIZE";
    if (!limit(RLIMIT_NOFILE, OPEN_FILES) || !limit(RLIMIT_CORE, 0) || !limit(RLIMIT_MEMLOCK, 0) || !limit(RLIMIT_MSGQUEUE, 0))
        return "limits";
    /* Kernels before 6.3 do not know it; the second seccomp program refuses PROT_EXEC all the same. */
    if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0 && errno != EINVAL)
        return "memory-deny-write-execute";
    return NULL;
}

/* ---- Landlock -------------------------------------------------------------------------------------------------------- */

struct landlock_ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};
struct landlock_path {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

#define EXECUTE UINT64_C(1)
#define READ_FILE (UINT64_C(1) << 2)
#define READ_DIRECTORY (UINT64_C(1) << 3)
#define TRUNCATE (UINT64_C(1) << 14)
/* Write, remove and make files and directories. */
#define CHANGE ((UINT64_C(1) << 1) | (UINT64_C(1) << 4) | (UINT64_C(1) << 5) | (UINT64_C(1) << 7) | (UINT64_C(1) << 8) | TRUNCATE)
#define OF_FILES (EXECUTE | READ_FILE | (UINT64_C(1) << 1) | TRUNCATE)

static uint64_t access_of(char mode)
{
    switch (mode) {
    case 'w':
        return READ_FILE | READ_DIRECTORY | CHANGE;
    case 'x':
        return READ_FILE | READ_DIRECTORY | EXECUTE;
    case 'l':
        return READ_DIRECTORY;
    default:
        return READ_FILE | READ_DIRECTORY;
    }
}

static uint64_t all_file_access(int version)
{
    int bits = version >= 5 ? 16 : version >= 3 ? 15 : version == 2 ? 14 : 13;
    return (UINT64_C(1) << bits) - 1;
}

static bool allow_path(int rules, const char *path, char mode, uint64_t handled)
{
    struct landlock_path rule = {.parent_fd = open(path, O_PATH | O_CLOEXEC)};
    struct stat file;
    if (rule.parent_fd < 0)
        return errno == ENOENT; /* What is not there needs no rule. */
    bool done = fstat(rule.parent_fd, &file) == 0;
    rule.allowed_access = access_of(mode);
    if (!S_ISDIR(file.st_mode))
        rule.allowed_access &= OF_FILES;
    rule.allowed_access &= handled;
    done = done && syscall(SYS_landlock_add_rule, rules, 1 /* beneath a path */, &rule, 0) == 0;
    close(rule.parent_fd);
    return done;
}

int confine_landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* which version */);
    return version < 0 ? 0 : (int)version;
}

const char *confine_files(const struct setup *setup, const uint8_t *paths)
{
    int version = confine_landlock_version();
    if (version < 1)
        return setup->flags & SETUP_LANDLOCK_REQUIRED ? "Landlock" : NULL;
    struct landlock_ruleset attributes = {
        .handled_access_fs = all_file_access(version),
        .handled_access_net = version >= 4 ? 3 : 0, /* Bind and connect. */
        .scoped = version >= 6 ? 3 : 0,             /* Abstract sockets, signals. */
    };
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
    if (rules < 0)
        return "Landlock";
    for (const char *next = (const char *)paths, *end = next + setup->paths_bytes; next < end; next += strlen(next) + 1)
        if (!allow_path(rules, next + 1, *next, attributes.handled_access_fs)) {
            close(rules);
            return "Landlock for a path";
        }
    long done = syscall(SYS_landlock_restrict_self, rules, 0);
    close(rules);
    return done == 0 ? NULL : "Landlock";
}

/* ---- seccomp --------------------------------------------------------------------------------------------------------- */

#define LOWEST_PLACE (UINT64_C(64) << 10)
#define HIGHEST_PLACE (UINT64_C(1) << 20)

static struct sock_fprog *kept; /* The program for running, where nothing in this process can change it. */
static size_t kept_bytes;

static const char *install(const struct sock_fprog *program)
{
    /* Above 0: a thread that has a program of its own. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, program) != 0)
        return "seccomp for every thread";
    return NULL;
}

static bool is_program(uint32_t bytes)
{
    return bytes != 0 && bytes % sizeof(struct sock_filter) == 0 && bytes <= BPF_MAXINSNS * sizeof(struct sock_filter);
}

const char *confine_calls(const uint8_t *program, uint32_t program_bytes)
{
    static struct sock_filter filter[BPF_MAXINSNS];
    if (!is_program(program_bytes))
        return "a seccomp program of this length";
    memcpy(filter, program, program_bytes);
    return install(&(struct sock_fprog){.len = (uint16_t)(program_bytes / sizeof *filter), .filter = filter});
}

const char *confine_program(const uint8_t *program, uint32_t program_bytes, int *listener)
{
    static struct sock_filter filter[BPF_MAXINSNS];
    if (!is_program(program_bytes))
        return "a seccomp program of this length";
    memcpy(filter, program, program_bytes);
    struct sock_fprog whole = {.len = (uint16_t)(program_bytes / sizeof *filter), .filter = filter};
    *listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &whole);
    return *listener >= 0 ? NULL : "seccomp";
}

/* At the lowest address at which there can be anything: so every range that overlaps it begins below its end. */
static void *lowest_place(size_t bytes)
{
    for (uint64_t place = LOWEST_PLACE; place <= HIGHEST_PLACE; place *= 2) {
        void *found = mmap((void *)place, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (found == (void *)place)
            return found;
        if (found != MAP_FAILED)
            munmap(found, bytes); /* A kernel that does not know the flag. */
    }
    return NULL;
}

const char *confine_keep(const uint8_t *program, uint32_t program_bytes)
{
    if (!is_program(program_bytes))
        return "a seccomp program of this length";
    long page = sysconf(_SC_PAGESIZE);
    kept_bytes = (sizeof *kept + program_bytes + (size_t)page - 1) / (size_t)page * (size_t)page;
    kept = lowest_place(kept_bytes);
    int fd = (int)syscall(SYS_memfd_create, "supervm-program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (!kept || fd < 0)
        return "a place for the second seccomp program";
    struct sock_fprog head = {.len = (uint16_t)(program_bytes / sizeof(struct sock_filter)), .filter = (void *)(kept + 1)};
    /* Sealed, a shared mapping can never be made writable, whatever the process tries. */
    bool done = ftruncate(fd, (off_t)kept_bytes) == 0 && pwrite(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
                pwrite(fd, program, program_bytes, sizeof head) == (ssize_t)program_bytes &&
                fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0 &&
                mmap(kept, kept_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == (void *)kept;
    close(fd);
    return done ? NULL : "a place for the second seccomp program";
}

const char *confine_finally(void)
{
    return install(kept);
}

/* What the profiles cannot say, since it depends on the process: steps over the rule where the call is another one. */
#define WORD(argument, half) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[argument]) + 4 * (half))
#define CALL(number, length)                                                                                                     \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, length)
#define REFUSE BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
/* Refuses where the argument is an address below the end of what is kept. */
#define REFUSE_LOW(argument)                                                                                                     \
    WORD(argument, 1), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3), WORD(argument, 0),                                          \
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, end_of_kept, 1, 0), REFUSE
/* Refuses where a bit of the argument is set. */
#define REFUSE_BIT(argument, bit) WORD(argument, 0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bit, 0, 1), REFUSE

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the halves of arguments are in the other order here"
#endif

#define FIRST_SIGNAL_STATUS 128
#define LAST_SIGNAL_STATUS 192 /* 128 and the highest signal. */

const char *confine_statuses(void)
{
    const struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 0, 5),
        WORD(0, 0),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff), /* All that a parent is told. */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FIRST_SIGNAL_STATUS, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_SIGNAL_STATUS, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(&(struct sock_fprog){.len = sizeof filter / sizeof *filter, .filter = (struct sock_filter *)filter});
}

const char *confine_guard(void)
{
    const uint32_t end_of_kept = (uint32_t)((uintptr_t)kept + kept_bytes);
    const struct sock_filter filter[] = {
        /* tgkill is how a C library aborts: this process only, and never with the signal that tells of a forbidden call. */
        CALL(SYS_tgkill, 6),
        WORD(0, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 1, 0),
        REFUSE,
        WORD(2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGSYS, 0, 1),
        REFUSE,
        /* bubblewrap tells a signal as a status from 128 on: no status that a process chooses may look like one. */
        CALL(SYS_exit, 3),
        REFUSE_BIT(0, 0x80),
        CALL(SYS_exit_group, 3),
        REFUSE_BIT(0, 0x80),
        /* Constructors run before the second program: it is the only one that can be put up, and it stays as it is. */
        CALL(SYS_seccomp, 5),
        WORD(2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(uintptr_t)kept, 0, 2),
        WORD(2, 1),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        REFUSE,
        CALL(SYS_munmap, 5),
        REFUSE_LOW(0),
        CALL(SYS_mprotect, 5),
        REFUSE_LOW(0),
        CALL(SYS_mremap, 12),
        REFUSE_LOW(0),
        WORD(3, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MREMAP_FIXED, 0, 5),
        REFUSE_LOW(4),
        CALL(SYS_remap_file_pages, 1),
        REFUSE,
        CALL(SYS_shmat, 3),
        REFUSE_BIT(2, SHM_REMAP),
        CALL(SYS_mmap, 7),
        WORD(3, 0),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_FIXED, 0, 5),
        REFUSE_LOW(0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(&(struct sock_fprog){.len = sizeof filter / sizeof *filter, .filter = (struct sock_filter *)filter});
}
