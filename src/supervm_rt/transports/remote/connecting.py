"""The one socket that a program may connect to: the kernel puts each ``connect`` to the host, and the host makes it itself.

Where a call leads is said by memory of the program, which it could change behind any look at it, and a socket
in what it may read could be made at any time. So the host reads the address once, and where that names its own socket it connects
the program's socket to it. No other is ever connected, whatever there is to be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import posixpath
import re
import select
import struct
from pathlib import Path

import trio

from supervm_rt.transports.allowance import Allowance

_LIBRARY = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438
_FAMILY = struct.Struct("=H")
_LONGEST_ADDRESS = 110
_UNIX = 1
_NOTIFICATION = struct.Struct("=QII iIQ 6Q")
"""Id, thread, flags; number, architecture, instruction, arguments."""
_ANSWER = struct.Struct("=QqiI")
"""Id, value, error, flags."""
_ID = struct.Struct("=Q")
_READS, _WRITES = 2, 1
_CALLS_A_SECOND, _CALLS_AT_ONCE = 50.0, 256
_PAUSE = 0.01


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("!") << 8 | number


_RECEIVE = _request(_READS | _WRITES, 0, _NOTIFICATION.size)
_SEND = _request(_READS | _WRITES, 1, _ANSWER.size)
_IS_VALID = _request(_WRITES, 2, _ID.size)


_THREADS = trio.CapacityLimiter(32)
"""Their own: a call that waits keeps no other work of the host from its thread."""


class Connections:
    """Makes the connections of one program."""

    def __init__(self, listener: int, inside: str, socket: Path) -> None:
        """``listener``: from its seccomp program; it is closed by ``close``. ``inside``: what it calls the host's ``socket``."""
        self._listener = listener
        self._inside = inside
        self._allowance = Allowance(rate=_CALLS_A_SECOND, burst=_CALLS_AT_ONCE)
        self._address = _FAMILY.pack(_UNIX) + os.fsencode(socket) + b"\0"

    async def serve(self) -> None:
        """Answers each call, one after the other. Returns when there is nobody left to call."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            happened = next((events for _, events in poll.poll(0)), 0)
            if not happened & select.POLLIN:  # to ask now could wait for ever
                if happened:
                    return
                continue
            told = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, told)
            except OSError:  # whoever called has gone
                continue
            if not self._allowance.take(1):  # a program that does nothing else waits, and the host does other things
                await trio.sleep(_PAUSE)
            number, thread, _, _, _, _, descriptor, address, length, *_ = _NOTIFICATION.unpack(told)
            # On a thread: where many connections wait to be accepted, the kernel lets it wait too.
            call = (number, thread, descriptor, address, length & 0xFFFF_FFFF)
            fault = await trio.to_thread.run_sync(self._connect, *call, abandon_on_cancel=True, limiter=_THREADS)
            with contextlib.suppress(OSError):  # it has gone meanwhile
                fcntl.ioctl(self._listener, _SEND, bytearray(_ANSWER.pack(number, 0, -fault, 0)))

    def _connect(self, number: int, thread: int, descriptor: int, address: int, length: int) -> int:
        """The error that the call ends with; 0: none."""
        held: list[int] = []
        try:
            status = Path(f"/proc/{thread}/status").read_bytes()  # a thread's name holds any byte but that of a line's end
            leader = re.search(rb"^Tgid:\t(\d+)$", status, re.MULTILINE)
            if leader is None or not _FAMILY.size < length <= _LONGEST_ADDRESS:
                return errno.EINVAL
            if address >> 63:  # the kernel's half: no offset of a file
                return errno.EFAULT
            memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
            held.append(memory)
            process = os.pidfd_open(int(leader[1]))
            held.append(process)
            # Both are of the process that called, if that still waits: a number is used again only behind its end.
            fcntl.ioctl(self._listener, _IS_VALID, bytearray(_ID.pack(number)))
            if not self._is_ours(os.pread(memory, length, address)):
                return errno.EACCES
            its = _call("syscall", _PIDFD_GETFD, process, descriptor & 0xFFFF_FFFF, 0)
            held.append(its)
            _call("connect", its, self._address, len(self._address))
        except OSError as error:
            return error.errno or errno.EACCES
        finally:
            for each in held:
                os.close(each)
        return 0

    def _is_ours(self, address: bytes) -> bool:
        family, path = address[: _FAMILY.size], os.fsdecode(address[_FAMILY.size :].partition(b"\0")[0])
        # POSIX leaves open what two slashes at the begin mean, and so does normpath.
        named = posixpath.normpath(f"/{path.lstrip('/')}")
        return family == _FAMILY.pack(_UNIX) and path.startswith("/") and named == self._inside

    def close(self) -> None:
        """From now on each call ends with ENOSYS. May be called again."""
        if self._listener >= 0:
            os.close(self._listener)
            self._listener = -1


def _call(name: str, *arguments: object) -> int:
    answer = int(getattr(_LIBRARY, name)(*arguments))
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
