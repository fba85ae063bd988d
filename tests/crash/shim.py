"""The library that stands between a process and its files (``interpose.c``): built, preloaded, told what to do."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_SOURCE: Final = Path(__file__).with_name("interpose.c")
ERRORS: Final = ("enospc", "enospc-on", "eio", "eio-on", "short")
"""Actions that a process survives."""
KILLS: Final = ("kill", "kill-half", "kill-after")


class _State(ctypes.Structure):
    _fields_ = (
        ("calls", ctypes.c_uint64),
        ("fired", ctypes.c_uint64),
        ("acknowledged", ctypes.c_uint64),
        ("what", ctypes.c_char * 240),
    )


def library() -> Path:
    """The path of the built library; builds it where it is missing or older than its source."""
    source = _SOURCE.read_bytes()
    built = ROOT / "build/crash" / f"interpose-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        draft = built.with_suffix(f".{os.getpid()}")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
        subprocess.run(["cc", *flags, "-o", str(draft), str(_SOURCE), "-ldl"], check=True)
        draft.rename(built)
    return built


def preloaded() -> bool:
    """Whether this process runs with the library."""
    return str(library()) in os.environ.get("LD_PRELOAD", "").split(":")


def start_again_with_it() -> None:
    """Replaces this process by one that has the library, with the same arguments."""
    os.environ["LD_PRELOAD"] = ":".join(filter(None, [os.environ.get("LD_PRELOAD", ""), str(library())]))
    os.execv(sys.executable, [sys.executable, "-m", "tests.crash", *sys.argv[1:]])


class Shim:
    """The library in this process. What it counts is shared with the processes that are forked from here on."""

    def __init__(self) -> None:
        """Raises AttributeError where the library was not preloaded."""
        self._library = ctypes.CDLL(None)
        self._library.crash_state.restype = ctypes.POINTER(_State)
        self._library.crash_acknowledge.argtypes = [ctypes.c_uint64]
        self._state: _State = self._library.crash_state().contents

    def arm(self, folder: Path, action: str = "", at: int = 0, journal: Path | None = None) -> None:
        """From here on, the calls that concern the files of ``folder`` count from 1."""
        os.environ["SUPERVM_CRASH_FOLDER"] = os.path.realpath(folder)
        os.environ["SUPERVM_CRASH_ACTION"] = action
        os.environ["SUPERVM_CRASH_AT"] = str(at)
        os.environ["SUPERVM_CRASH_JOURNAL"] = str(journal or "")
        if self._library.crash_arm() != 0:
            raise ValueError(f"cannot {action!r} at {at} in {folder}")

    def disarm(self) -> None:
        """Every call is made again as it is asked for."""
        self._library.crash_disarm()

    def forget(self) -> None:
        """Sets what was counted to nothing."""
        ctypes.memset(ctypes.byref(self._state), 0, ctypes.sizeof(self._state))

    def acknowledge(self, blocks: int) -> None:
        """Notes that somebody was told that so many blocks are stored."""
        self._library.crash_acknowledge(blocks)

    @property
    def calls(self) -> int:
        """How many were counted."""
        return int(self._state.calls)

    @property
    def fired(self) -> int:
        """How many were not made as they were asked for."""
        return int(self._state.fired)

    @property
    def acknowledged(self) -> int:
        """Blocks that somebody was told of."""
        return int(self._state.acknowledged)

    @property
    def what(self) -> str:
        """The first call that was not made as it was asked for, such as ``write store.db-wal 24``."""
        return bytes(self._state.what).decode()
