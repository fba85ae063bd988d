"""Files that a process still holds open and that have no name any more: whoever measures a folder overlooks them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from pathlib import Path

_PIDFD_GETFD = 438
_MAPPED = re.compile(rb"\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) ")
_ON_THEIR_WAY = re.compile(rb"^scm_fds:\s*0*[1-9]", re.MULTILINE)
_MOST_INFO = 4_096
_MOST_MAPS = 8 << 20
"""Bytes of its list of mappings that are looked at: their names are the process's own choice."""


def unnamed_bytes(process: int, pidfd: int, folder: Path) -> int:
    """How much nameless files of the folder's file system take on the disk, which this process has open. ``pidfd``: its own.

    Its threads share one table of descriptors. 0 where this host may not look into it. Raises OSError with EFBIG for one that the
    process keeps by a mapping alone, and for descriptors that are on their way over a socket: it may be of any size.
    """
    device = folder.stat().st_dev
    sizes: dict[int, int] = {}
    try:
        # Not /proc/PID/fd: that belongs to root where the process is not dumpable. This one asks for the right to trace.
        numbers = [int(name) for name in os.listdir(f"/proc/{process}/fdinfo")]  # noqa: PTH208 - names are all that is needed
        with Path(f"/proc/{process}/maps").open("rb") as file:
            mapped = file.read(_MOST_MAPS + 1)  # names hold any byte but that of a line's end
    except OSError:  # it has ended, or the kernel does not let it be looked at
        return 0
    on_their_way = False
    for number in numbers:
        with contextlib.suppress(OSError):  # closed meanwhile
            status = _status_of(pidfd, number)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev == device:
                sizes[status.st_ino] = max(status.st_blocks * 512, status.st_size)
            elif stat.S_ISSOCK(status.st_mode):
                on_their_way = on_their_way or _holds_descriptors(process, number)
    if on_their_way:
        raise OSError(errno.EFBIG, "descriptors on their way over a socket")
    if len(mapped) > _MOST_MAPS:
        raise OSError(errno.EFBIG, "more mappings than can be looked at")
    for line in mapped.split(b"\n"):
        if not line.endswith(b" (deleted)") or (found := _MAPPED.match(line)) is None:
            continue
        major, minor, inode = found.groups()
        if os.makedev(int(major, 16), int(minor, 16)) == device and int(inode) not in sizes:
            raise OSError(errno.EFBIG, "a file without a name that is only mapped")
    return sum(sizes.values())


def _holds_descriptors(process: int, number: int) -> bool:
    """Whether descriptors lie in a socket's queue. They can lie in another's only where that one is such a descriptor itself."""
    with Path(f"/proc/{process}/fdinfo/{number}").open("rb") as file:
        return _ON_THEIR_WAY.search(file.read(_MOST_INFO)) is not None


def _status_of(pidfd: int, number: int) -> os.stat_result:
    libc = ctypes.CDLL(None, use_errno=True)
    ours = int(libc.syscall(_PIDFD_GETFD, pidfd, number, 0))
    if ours < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return os.fstat(ours)
    finally:
        os.close(ours)
