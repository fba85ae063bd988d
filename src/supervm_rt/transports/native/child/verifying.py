"""Whether a child is confined, as the kernel says it: what the child itself says is a claim, once foreign code ran in it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from pathlib import Path

OWN_PROGRAMS = 3
"""seccomp programs that the runner puts up: for loading, its own, for running. A plugin can only add to them."""
_CREDENTIALS = struct.Struct("3i")
_DESCRIPTOR = struct.Struct("i")
_FILTERING = 2


def ask_for_sender(control: socket.socket) -> None:
    """From now on the kernel says which process sent what is received."""
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def receive_with_sender(control: socket.socket, size: int) -> tuple[bytes, int]:
    """Bytes, and the process that sent them by its number here (0: the kernel does not say). No descriptor is taken."""
    data, extra, _, _ = control.recvmsg(size, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(content) == _CREDENTIALS.size:
            return data, _CREDENTIALS.unpack(content)[0]
    return data, 0


def receive_with_descriptor(control: socket.socket) -> tuple[int, int]:
    """(the process that sent one byte and a descriptor with it, the descriptor); (0, -1): the other end was closed, or sent none.

    Raises BlockingIOError, OSError.
    """
    space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTOR.size)
    _, extra, _, _ = control.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
    sender, descriptor = 0, -1
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) == _CREDENTIALS.size:
            sender = _CREDENTIALS.unpack(content)[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(content) == _DESCRIPTOR.size:
            descriptor = _DESCRIPTOR.unpack(content)[0]
    return (sender, descriptor) if descriptor >= 0 else (0, -1)


def what_is_missing(process: int, *, namespaces: bool, programs: int = OWN_PROGRAMS, proc: Path = Path("/proc")) -> str:
    """What the kernel says is not around every thread of a process, for a person; empty: nothing is missing.

    ``programs``: seccomp programs that have to be.
    """
    try:
        own = _fields(proc / str(os.getpid()) / "status")
        threads = [path / "status" for path in (proc / str(process) / "task").iterdir()]
        found = [fields for path in threads if (fields := _fields(path))]
    except OSError as error:
        return f"/proc does not show it ({error.strerror})"
    if not found or "Seccomp_filters" not in own:
        return "/proc does not show it"
    wanted = _number(own, "Seccomp_filters") + programs
    for fields in found:
        if _number(fields, "NoNewPrivs") != 1:
            return "no_new_privs"
        if _number(fields, "Seccomp") != _FILTERING or _number(fields, "Seccomp_filters") < wanted:
            return "the second seccomp program"
        if any(int(fields.get(name, "f"), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")):
            return "the loss of capabilities"
        if namespaces and len(fields.get("NSpid", "").split()) <= len(own.get("NSpid", "").split()):
            return "a process namespace"
    return ""


def user_of(process: int, *, proc: Path = Path("/proc")) -> int | None:
    """The user that a process runs as; None: it has ended."""
    user = _fields(proc / str(process) / "status").get("Uid", "").split()
    return int(user[1]) if len(user) == 4 else None


def _fields(path: Path) -> dict[str, str]:
    """What a status file says; nothing, where the thread has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # By lines of bytes: a thread's name may hold a carriage return.
        lines = [line.decode(errors="replace") for line in path.read_bytes().split(b"\n")]
        return {found[1]: found[2] for line in lines if (found := re.match(r"(\w+):\s*(.*)$", line, re.DOTALL))}
    return {}


def _number(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else 0
