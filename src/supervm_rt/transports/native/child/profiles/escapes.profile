# What no profile can allow: ways out of a process. A call of one of these ends the process at once (SIGSYS).
# One system call a line; those that this machine's kernel or architecture does not have are left out.

execve
execveat
ptrace
process_vm_readv
process_vm_writev
process_madvise
kcmp
pidfd_open
pidfd_getfd
pidfd_send_signal

bpf
perf_event_open
userfaultfd
io_uring_setup
io_uring_enter
io_uring_register

mount
umount2
move_mount
open_tree
fsopen
fsconfig
fsmount
fspick
mount_setattr
pivot_root
chroot
setns
unshare
name_to_handle_at
open_by_handle_at

add_key
request_key
keyctl

init_module
finit_module
delete_module
kexec_load
kexec_file_load
reboot
swapon
swapoff
acct
iopl
ioperm
