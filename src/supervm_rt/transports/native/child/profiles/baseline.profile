# Adds threads, epoll and timers to strict: what Rust with threads, C++ and Go need.

include strict

[running]
# A thread, and neither a process nor a namespace. Never with files of its own: the host counts those of the process.
clone a0 & CLONE_THREAD|CLONE_VM|CLONE_SIGHAND|CLONE_FILES|CLONE_NAMESPACES == CLONE_THREAD|CLONE_VM|CLONE_SIGHAND|CLONE_FILES
set_robust_list
rseq
membarrier
prctl a0 == PR_SET_NAME
prctl a0 == PR_GET_NAME

pipe2
dup
epoll_create1
epoll_ctl
epoll_wait
epoll_pwait
epoll_pwait2
timerfd_create
timerfd_settime
timerfd_gettime
mincore
