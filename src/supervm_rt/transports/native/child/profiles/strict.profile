# For plugins in C or Rust that start no thread: memory, time, what they were given to read and write.
#
# A line is a system call, and after it what its arguments must be: aN == VALUE, aN <= VALUE, aN & MASK == VALUE, joined
# by commas; several lines of one call are alternatives. An argument is compared in its whole 64 bits, of which a kernel may look
# at 32 only: so there is no !=, which a value with other high bits would pass. A value is a number or names joined by |.
# [running]: always allowed. [loading]: besides, until the library is loaded. [reading]: where security.read_paths grants a path.
# [storage]: where resources.storage grants some. [network]: where network.allow or network.listen grants any. [program]: for
# programs with runMode grpc, which are all confined before their first instruction: they start, and talk to the host over its socket.
# What is not allowed answers EPERM; what this host's libseccomp does not know, and clone3, ENOSYS. escapes.profile lists what ends
# the process whatever a profile says; a 32-bit or x32 call does too.

[running]
read
readv
pread64
preadv
write
writev
close
lseek
fstat
newfstatat
fcntl a1 == F_GETFD
fcntl a1 == F_SETFD
fcntl a1 == F_GETFL
fcntl a1 == F_DUPFD_CLOEXEC
poll
ppoll
select
pselect6
eventfd2

# Never PROT_EXEC. Never shared memory and never what grows downwards: neither counts against the limit of memory, and no mremap,
# which makes a page of the stack, that grows downwards, as large as one likes. A C library copies where it is refused.
brk
mmap a2 & PROT_EXEC == 0, a3 & MAP_TYPE|MAP_GROWSDOWN == MAP_PRIVATE
mprotect a2 & PROT_EXEC|PROT_GROWSDOWN|PROT_GROWSUP == 0
munmap
# Not MADV_REMOVE, which would take pages out of the ring.
madvise a2 == MADV_NORMAL
madvise a2 == MADV_RANDOM
madvise a2 == MADV_SEQUENTIAL
madvise a2 == MADV_WILLNEED
madvise a2 == MADV_DONTNEED
madvise a2 == MADV_FREE
madvise a2 == MADV_HUGEPAGE
madvise a2 == MADV_NOHUGEPAGE
madvise a2 == MADV_DONTDUMP
madvise a2 == MADV_DODUMP
madvise a2 == MADV_COLLAPSE

rt_sigaction
rt_sigprocmask
rt_sigreturn
sigaltstack
# Only this process; the runner sees to that.
tgkill

futex
sched_yield
sched_getaffinity
nanosleep
clock_nanosleep
clock_gettime
clock_getres
gettimeofday
time
restart_syscall
getrandom
getpid
gettid
getuid
geteuid
getgid
getegid
uname
sysinfo
getrusage
# The limits may be asked for, not changed.
prlimit64 a2 == 0
exit
exit_group

[loading]
# Read-only files, and their code.
openat a2 & O_ACCMODE|O_CREAT|O_TRUNC|O_TMPFILE == 0
open a1 & O_ACCMODE|O_CREAT|O_TRUNC|O_TMPFILE == 0
mmap a3 & MAP_TYPE|MAP_GROWSDOWN|MAP_ANONYMOUS == MAP_PRIVATE
stat
lstat
statx
access
faccessat
faccessat2
readlink
readlinkat
getcwd
# For the program that follows: SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC, and so without a listener.
seccomp a0 == 1, a1 == 1

[reading]
openat a2 & O_ACCMODE|O_CREAT|O_TRUNC|O_TMPFILE == 0
open a1 & O_ACCMODE|O_CREAT|O_TRUNC|O_TMPFILE == 0
getdents64
stat
lstat
statx
statfs
fstatfs
access
faccessat
faccessat2
readlink
readlinkat
fadvise64
inotify_init1
inotify_add_watch
inotify_rm_watch

[storage]
openat a2 & O_TMPFILE == 0
open a1 & O_TMPFILE == 0
getdents64
stat
lstat
statx
statfs
fstatfs
access
faccessat
faccessat2
pwrite64
pwritev
ftruncate
fsync
fdatasync
fallocate a1 == 0
flock
fcntl a1 == F_GETLK
fcntl a1 == F_SETLK
fcntl a1 == F_SETLKW
mkdir
mkdirat
rmdir
unlink
unlinkat
rename
renameat
renameat2

[network]
# What a connected socket is for, and nothing that makes, binds or connects one; sendmsg could name another address. Out-of-band
# data is little used, and has had errors in the kernel.
recvmsg a2 & MSG_OOB == 0
recvfrom a3 & MSG_OOB == 0
sendto a3 & MSG_OOB|MSG_FASTOPEN|MSG_ZEROCOPY == 0, a4 == 0
shutdown
getsockname
getpeername
getsockopt a1 == SOL_SOCKET, a2 == SO_ERROR
getsockopt a1 == SOL_SOCKET, a2 == SO_TYPE
getsockopt a1 == SOL_SOCKET, a2 == SO_KEEPALIVE
getsockopt a1 == IPPROTO_TCP, a2 == TCP_NODELAY
getsockopt a1 == IPPROTO_TCP, a2 == TCP_INFO
setsockopt a1 == SOL_SOCKET, a2 == SO_KEEPALIVE
setsockopt a1 == SOL_SOCKET, a2 == SO_RCVTIMEO
setsockopt a1 == SOL_SOCKET, a2 == SO_SNDTIMEO
setsockopt a1 == IPPROTO_TCP, a2 == TCP_NODELAY
setsockopt a1 == IPPROTO_TCP, a2 == TCP_KEEPIDLE
setsockopt a1 == IPPROTO_TCP, a2 == TCP_KEEPINTVL
setsockopt a1 == IPPROTO_TCP, a2 == TCP_KEEPCNT
setsockopt a1 == IPPROTO_TCP, a2 == TCP_USER_TIMEOUT
setsockopt a1 == IPPROTO_TCP, a2 == TCP_QUICKACK

[program]
# Only sockets that have to be connected, and connect() is put to the host whatever is said here: it makes it itself, and to its own
# socket only. A datagram could be sent to any socket that the program sees. No out-of-band data, as above.
socket a0 == AF_UNIX, a1 & SOCK_TYPE == SOCK_STREAM
socketpair a0 == AF_UNIX, a1 & SOCK_TYPE == SOCK_STREAM
socketpair a0 == AF_UNIX, a1 & SOCK_TYPE == SOCK_SEQPACKET
sendto a3 & MSG_OOB == 0
recvfrom a3 & MSG_OOB == 0
sendmsg a2 & MSG_OOB == 0
recvmsg a2 & MSG_OOB == 0
sendmmsg a3 & MSG_OOB == 0
recvmmsg a3 & MSG_OOB == 0
shutdown
getsockname
getpeername
getsockopt
setsockopt
fcntl a1 == F_SETFL
ioctl a1 == FIONBIO
ioctl a1 == FIOCLEX
ioctl a1 == TCGETS
dup
dup2
dup3
getdents64
statfs
getppid
getpgrp
getresuid
getresgid
getgroups
set_tid_address
set_robust_list
rseq
arch_prctl
getrlimit
times
