/* Ways out of a sandbox. Each answers 0 where it succeeded, else an errno; some end the process. `aim` is what the test prepared:
 * a secret file, a port that listens, a process of the host. */
#ifndef ATTACKS_H
#define ATTACKS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct aim {
    const char *secret;
    int port;
    int process;
};

extern char **environ;
static int said(long answer) { return answer < 0 ? errno : 0; }

static int read_secret(const struct aim *aim)
{
    char byte;
    int fd = open(aim->secret, O_RDONLY);
    return fd < 0 ? errno : said(read(fd, &byte, 1));
}
static int list_secrets(const struct aim *aim)
{
    char folder[512];
    snprintf(folder, sizeof folder, "%s", aim->secret);
    *strrchr(folder, '/') = 0;
    DIR *found = opendir(folder);
    return found ? closedir(found) : errno;
}
static int write_beside(const struct aim *aim)
{
    char path[512];
    snprintf(path, sizeof path, "%s.new", aim->secret);
    return said(open(path, O_CREAT | O_WRONLY, 0600));
}
static int write_root(const struct aim *aim)
{
    (void)aim;
    char path[64];
    snprintf(path, sizeof path, "/tmp/written-by-attack-%d", (int)getpid());
    int answer = said(open(path, O_CREAT | O_WRONLY, 0600));
    unlink(path);
    return answer;
}
static int read_proc(const struct aim *aim) { (void)aim; return said(open("/proc/self/maps", O_RDONLY)); }
static int read_device(const struct aim *aim) { (void)aim; return said(open("/dev/null", O_RDONLY)); }
static int read_library(const struct aim *aim) { (void)aim; return said(open("/etc/ld.so.cache", O_RDONLY)); }

static int fork_one(const struct aim *aim)
{
    (void)aim;
    pid_t child = fork();
    if (child == 0) _exit(0);
    return child < 0 ? errno : said(waitpid(child, NULL, 0));
}
static void *nothing(void *unused) { return unused; }
static int make_thread(const struct aim *aim)
{
    (void)aim;
    pthread_t thread;
    int error = pthread_create(&thread, NULL, nothing, NULL);
    return error ? error : pthread_join(thread, NULL);
}
/* Answers 1000 times the error that ended it, and how many there were. */
static void *stay(void *unused) { for (;;) pause(); return unused; }
static int thread_bomb(const struct aim *aim)
{
    (void)aim;
    pthread_t thread;
    pthread_attr_t small;
    int count = 0, error = 0;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 16);
    while (count < 200 && (error = pthread_create(&thread, &small, stay, NULL)) == 0) count++;
    return 1000 * error + count;
}
static int execute(const struct aim *aim) { (void)aim; char *none[] = {"true", NULL}; execve("/bin/true", none, NULL); return errno; }

static int map(int protection, int flags)
{
    void *place = mmap(NULL, 1 << 20, protection, flags | MAP_ANONYMOUS, -1, 0);
    return place == MAP_FAILED ? errno : 0;
}
static int map_shared(const struct aim *aim) { (void)aim; return map(PROT_READ | PROT_WRITE, MAP_SHARED); }
static int map_growing(const struct aim *aim) { (void)aim; return map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_GROWSDOWN); }
static int map_code(const struct aim *aim) { (void)aim; return map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE); }
static int make_code(const struct aim *aim)
{
    (void)aim;
    void *place = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return said(mprotect(place, 4096, PROT_READ | PROT_EXEC));
}
static int make_memfd(const struct aim *aim) { (void)aim; return said(syscall(SYS_memfd_create, "x", 0)); }
static int hog_memory(const struct aim *aim)
{
    (void)aim;
    for (int megabytes = 0; megabytes < 256; megabytes += 4) {
        void *place = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) return errno;
        memset(place, 1, 4 << 20);
    }
    return 0;
}

/* Neither counts against RLIMIT_DATA: only a control group holds it. */
static int hog_shared(const struct aim *aim)
{
    (void)aim;
    for (int megabytes = 0; megabytes < 256; megabytes += 4) {
        void *place = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) return errno;
        memset(place, 1, 4 << 20);
    }
    return 0;
}
/* A page of the stack, which grows downwards and counts against no limit, made as large as one likes. */
static char *page_of_stack;
__attribute__((constructor)) static void use_stack(void)
{
    volatile char used[1 << 20];
    for (size_t at = sizeof used; at > 0; at -= 1024) used[at - 1] = 1;
    page_of_stack = (char *)(((uintptr_t)used + 8192) & ~(uintptr_t)4095);
}
static int hog_by_stack(const struct aim *aim)
{
    (void)aim;
    char *place = mremap(page_of_stack, 4096, 256 << 20, MREMAP_MAYMOVE);
    if (place == MAP_FAILED) return errno;
    memset(place, 1, 256 << 20);
    return 0;
}
/* What is never written takes no memory, but a table of 4 KiB for each 2 MiB that is looked at. */
static int hog_tables(const struct aim *aim)
{
    (void)aim;
    size_t bytes = (size_t)96 << 30;
    volatile char *place = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if ((void *)place == MAP_FAILED) return errno;
    for (size_t at = 0; at < bytes; at += 2 << 20) (void)place[at];
    return 0;
}
/* Wants all of a processor for three seconds. Answers 100 and the percentage that it got. */
static int burn(const struct aim *aim)
{
    (void)aim;
    struct timespec begun, now, used;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000 < 3000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return 100 + (int)((used.tv_sec * 1000 + used.tv_nsec / 1000000) / 30);
}

static int connect_tcp(const struct aim *aim)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)aim->port), .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? errno : said(connect(fd, (struct sockaddr *)&there, sizeof there));
}
static int send_udp(const struct aim *aim)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)aim->port), .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? errno : said(sendto(fd, "x", 1, 0, (struct sockaddr *)&there, sizeof there));
}
static int make_unix_socket(const struct aim *aim) { (void)aim; return said(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int make_netlink_socket(const struct aim *aim) { (void)aim; return said(socket(AF_NETLINK, SOCK_RAW, 0)); }

static int trace(const struct aim *aim) { (void)aim; return said(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int read_process(const struct aim *aim)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)&byte, 1};
    return said(process_vm_readv(aim->process ? getpid() : 0, &here, 1, &there, 1, 0));
}
static int signal_host(const struct aim *aim) { return said(kill(aim->process, 0)); }
static int signal_thread(const struct aim *aim) { return said(syscall(SYS_tgkill, aim->process, aim->process, 0)); }
static int signal_all(const struct aim *aim) { (void)aim; return said(kill(-1, 0)); }
static int new_namespace(const struct aim *aim) { (void)aim; return said(syscall(SYS_unshare, 0x10000000)); }
static int clone_namespace(const struct aim *aim)
{
    (void)aim;
    long child = syscall(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return said(child);
}
/* A thread with a table of descriptors of its own, which nobody who looks at its process sees. */
static int quit(void *unused) { (void)unused; return 0; }
static int clone_own_files(const struct aim *aim)
{
    (void)aim;
    static char stack[1 << 16] __attribute__((aligned(16)));
    int answer = said(clone(quit, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL));
    if (answer == 0) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* The stack is its own until it has ended. */
    return answer;
}
static int clone_3(const struct aim *aim)
{
    (void)aim;
    uint64_t arguments[11] = {[4] = SIGCHLD};
    long child = syscall(435, arguments, sizeof arguments);
    if (child == 0) _exit(0);
    return said(child);
}
static int load_bpf(const struct aim *aim) { (void)aim; return said(syscall(SYS_bpf, 99, NULL, 0)) == EINVAL ? 0 : errno; }
static int set_up_uring(const struct aim *aim) { (void)aim; char parameters[120] = {0}; return said(syscall(425, 1, parameters)); }
static int use_keys(const struct aim *aim) { (void)aim; return said(syscall(SYS_keyctl, 0, -3, 0)); }
static int open_process(const struct aim *aim) { (void)aim; return said(syscall(434, getpid(), 0)); }

static int watch_performance(const struct aim *aim)
{
    (void)aim;
    uint32_t attributes[32] = {1 /* software */, 128, 0};
    return said(syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0));
}
static int handle_faults(const struct aim *aim) { (void)aim; return said(syscall(SYS_userfaultfd, 1)); }
static int execute_at(const struct aim *aim)
{
    (void)aim;
    char *arguments[] = {"true", NULL};
    return said(syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, NULL, 0));
}
/* There is none: a kernel that looks at the number lets the call be made. */
static int join_namespace(const struct aim *aim) { (void)aim; return said(syscall(SYS_setns, -1, 0)) == EBADF ? 0 : errno; }
static int steal_descriptor(const struct aim *aim) { (void)aim; return said(syscall(438, -1, 0, 0)) == EBADF ? 0 : errno; }
static int become_dumpable(const struct aim *aim) { (void)aim; return said(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); }
static int write_own_memory(const struct aim *aim) { (void)aim; return said(open("/proc/self/mem", O_RDWR)); }
static int make_pair(const struct aim *aim) { (void)aim; int pair[2]; return said(socketpair(AF_UNIX, SOCK_STREAM, 0, pair)); }

/* So as to outlive the host. */
static int clear_death_signal(const struct aim *aim) { (void)aim; return said(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)); }
static int leave_session(const struct aim *aim) { (void)aim; return getpgrp() == getpid() ? 0 : said(setsid()); }
static int raise_limit(const struct aim *aim)
{
    (void)aim;
    uint64_t limits[2] = {64, 64};
    return said(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, limits, NULL));
}
/* A program of one's own in the place of the sandbox's; then what would let it be put there. */
static int install_program(const struct aim *aim)
{
    (void)aim;
    struct sock_filter allow = {.code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW};
    struct sock_fprog program = {.len = 1, .filter = &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return said(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
}
static int map_over_program(const struct aim *aim)
{
    (void)aim;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    return mmap((void *)0x10000, 1 << 16, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED ? errno : 0;
}
static int unmap_program(const struct aim *aim) { (void)aim; return said(syscall(SYS_munmap, 0, 1L << 20)); }
static int move_over_program(const struct aim *aim)
{
    (void)aim;
    void *place = mmap(NULL, 1 << 16, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return said(syscall(SYS_mremap, place, 1L << 16, 1L << 16, MREMAP_MAYMOVE | MREMAP_FIXED, 0x10000));
}
static int unknown_call(const struct aim *aim) { (void)aim; return said(syscall(550)) == ENOSYS ? 0 : errno; }
static int clear_nonblock(const struct aim *aim)
{
    (void)aim;
    int error = ENOENT;
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) {
            if (fcntl(fd, F_SETFL, 0) == 0) return 0;
            error = errno;
        }
    return error;
}
static int read_environment(const struct aim *aim) { (void)aim; return environ && *environ ? 0 : ENOENT; }
/* Standard streams, and in the sandbox the control channel and the event: nothing else is open. */
static int find_descriptors(const struct aim *aim)
{
    (void)aim;
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count > 5 ? 0 : ENOENT;
}
#if defined(__x86_64__)
static int call_x32(const struct aim *aim) { (void)aim; return said(syscall(0x40000000 | SYS_getpid)); }
static int call_32_bit(const struct aim *aim)
{
    (void)aim;
    long answer;
    __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20L) : "r8", "r9", "r10", "r11", "memory");
    return answer > 0 ? 0 : ENOSYS;
}
#else
static int call_x32(const struct aim *aim) { (void)aim; return ENOSYS; }
static int call_32_bit(const struct aim *aim) { (void)aim; return ENOSYS; }
#endif
/* Against the storage, which is the working directory. */
static int write_storage(const struct aim *aim)
{
    (void)aim;
    int fd = open("kept", O_CREAT | O_RDWR | O_APPEND, 0600);
    if (fd < 0) return errno;
    off_t before = lseek(fd, 0, SEEK_END);
    return write(fd, "x", 1) == 1 ? 100 + (int)before : errno;
}
static int make_symbolic_link(const struct aim *aim) { (void)aim; return said(symlink("/etc", "link")); }
static int make_hard_link(const struct aim *aim)
{
    (void)aim;
    int fd = open("first", O_CREAT | O_WRONLY, 0600);
    return fd < 0 ? ENOENT : said(link("first", "second"));
}
static int make_fifo(const struct aim *aim) { (void)aim; return said(mknod("pipe", S_IFIFO | 0600, 0)); }
static int make_device(const struct aim *aim) { (void)aim; return said(mknod("null", S_IFCHR | 0600, 0x103)); }
static int climb(const struct aim *aim) { (void)aim; return said(open("../climbed", O_CREAT | O_WRONLY, 0600)); }
static int make_program(const struct aim *aim)
{
    (void)aim;
    int fd = open("program", O_CREAT | O_RDWR, 0700);
    if (fd < 0) return errno;
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0;
}
static int write_one_large(const struct aim *aim)
{
    (void)aim;
    static char megabyte[1 << 20];
    int fd = open("large", O_CREAT | O_WRONLY, 0600);
    for (int i = 0; i < 64; i++)
        if (write(fd, megabyte, sizeof megabyte) <= 0) return errno;
    return 0;
}
static int write_many(const struct aim *aim)
{
    (void)aim;
    static char part[1 << 19];
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof name, "part-%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0 || write(fd, part, sizeof part) <= 0) return errno;
        close(fd);
    }
    return 0;
}
/* Files that nobody finds by a name: kept open, or only mapped. */
static int write_unnamed(int mapped)
{
    static char part[1 << 20];
    for (int i = 0; i < 12; i++) {
        int fd = open("gone", O_CREAT | O_RDWR, 0600);
        if (fd < 0 || unlink("gone") != 0) return errno;
        for (int written = 0; written < 3; written++)
            if (write(fd, part, sizeof part) <= 0) return errno;
        if (!mapped) continue;
        if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) return errno;
        close(fd);
    }
    return 0;
}
static int write_unlinked(const struct aim *aim) { (void)aim; return write_unnamed(0); }
static int write_mapped(const struct aim *aim) { (void)aim; return write_unnamed(1); }
/* So far down that no path names it. */
static int bury_storage(const struct aim *aim)
{
    (void)aim;
    char name[201] = "";
    memset(name, 'n', 200);
    int at = AT_FDCWD;
    for (int i = 0; i < 30; i++) {
        if (mkdirat(at, name, 0700) != 0) return errno;
        int next = openat(at, name, O_RDONLY | O_DIRECTORY);
        if (next < 0) return errno;
        if (at != AT_FDCWD) close(at);
        at = next;
    }
    return 0;
}
/* Against whoever is at the other end of what a process inherited: a host, which listens to a socket and an event. */
static int write_to_each(int sockets, const void *what, size_t size)
{
    int error = ENOENT;
    for (int fd = 3; fd < 1024; fd++) {
        struct stat file;
        if (fstat(fd, &file) != 0 || (S_ISSOCK(file.st_mode) != 0) != sockets || S_ISREG(file.st_mode)) continue;
        if (write(fd, what, size) == (ssize_t)size) error = 0;
    }
    return error;
}
static int forge_control(const struct aim *aim) { (void)aim; return write_to_each(1, "nonsense nonsense nonsense", 26); }
static int forge_answer(const struct aim *aim)
{
    (void)aim;
    uint32_t stopped[4] = {69, 0, 0, 0};
    return write_to_each(1, stopped, sizeof stopped);
}
static int wake_host(const struct aim *aim)
{
    (void)aim;
    uint64_t one = 1;
    return write_to_each(0, &one, sizeof one);
}
static int crash(const struct aim *aim) { (void)aim; volatile int *nowhere = NULL; *nowhere = 1; return 0; }
static int abort_it(const struct aim *aim) { (void)aim; abort(); }
static int exit_0(const struct aim *aim) { (void)aim; _exit(0); }
static int exit_159(const struct aim *aim) { (void)aim; _exit(159); }
static int signal_159(const struct aim *aim) { (void)aim; signal(SIGSYS, SIG_DFL); return said(raise(SIGSYS)); }

#define EACH_ATTACK(X)                                                                                                          \
    X(read_secret) X(list_secrets) X(write_beside) X(write_root) X(read_proc) X(read_device) X(read_library) X(fork_one)          \
    X(make_thread) X(thread_bomb) X(execute) X(map_shared) X(map_growing) X(map_code) X(make_code) X(make_memfd) X(hog_memory)                   \
    X(connect_tcp) X(send_udp) X(make_unix_socket) X(make_netlink_socket) X(trace) X(read_process) X(signal_host)                 \
    X(signal_thread) X(signal_all) X(new_namespace) X(clone_namespace) X(clone_own_files) X(clone_3) X(load_bpf) X(set_up_uring) X(use_keys)         \
    X(open_process) X(watch_performance) X(handle_faults) X(execute_at) X(join_namespace) X(steal_descriptor) \
    X(become_dumpable) X(write_own_memory) X(make_pair) X(raise_limit) X(unknown_call) X(clear_nonblock) X(read_environment) X(find_descriptors) X(call_x32)          \
    X(call_32_bit) X(write_storage) X(make_symbolic_link) X(make_hard_link) X(make_fifo) X(make_device) X(climb) X(make_program) X(write_one_large) X(write_many) X(write_unlinked) X(write_mapped) X(bury_storage) X(crash) X(abort_it) X(exit_0) X(exit_159) \
    X(signal_159) X(install_program) X(map_over_program) X(unmap_program) X(move_over_program) X(hog_shared) X(hog_by_stack) X(hog_tables) X(burn) X(clear_death_signal) X(leave_session) X(forge_control) X(forge_answer) X(wake_host)

static int attack(const char *name, const struct aim *aim)
{
#define TRY(each) if (strcmp(name, #each) == 0) return each(aim);
    EACH_ATTACK(TRY)
#undef TRY
    return -1;
}

#endif
