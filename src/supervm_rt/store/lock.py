"""One writer: an advisory lock on a file beside the store, which names the process that holds it.

The kernel gives the lock back when its holder ends, however it ends. The file itself stays: taking it away would let two
processes hold locks on two files of one name.

The file is the store's bell too: the writer writes it anew after each commit, so that other processes may watch it for commits.
The store's own files would tell too early: SQLite writes its log before a reader sees the transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from supervm_rt.errors import StoreError, StoreLocked
from supervm_rt.store.faults import from_system

_LONGEST: Final = 16
"""Bytes of a process id and its end of line, and more."""


def bell_path(store: Path) -> Path:
    """The file beside a store that is locked by its writer, and written after each commit."""
    return store.with_name(store.name + ".lock")


class WriterLock:
    """Held from construction until ``release``."""

    def __init__(self, store: Path) -> None:
        """Raises StoreLocked where another process, or another part of this one, holds it; StoreError where there can be none.

        A file of that name that is no lock file stays as it is.
        """
        path = bell_path(store)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise from_system(error, path, "write the lock file") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdecimal() else "another process"
            raise StoreLocked(
                f"{who} has the store {store} open for writing", remedy="stop it, name another store, or open this one read-only"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise from_system(error, path, "lock") from error
        try:
            found = os.pread(descriptor, 32, 0)
            if not _is_process_id(found):
                os.close(descriptor)
                raise StoreError(
                    f"{path} is in the way: it is not a lock file of a store", remedy="move it away, or name another store"
                )
            os.ftruncate(descriptor, 0)
            self._holder = f"{os.getpid()}\n".encode()
            os.pwrite(descriptor, self._holder, 0)
        except OSError as error:
            os.close(descriptor)
            raise from_system(error, path, "write the lock file") from error
        self._descriptor = descriptor

    def ring(self) -> None:
        """Tells who watches the file that something was committed. Where that fails, they find it when they look."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, self._holder, 0)

    def release(self) -> None:
        """May be called again."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _is_process_id(found: bytes) -> bool:
    """Also of a number that is not there, or half of it: a failure of the machine leaves zeros where nothing was written yet."""
    digits = found.replace(b"\0", b"").removesuffix(b"\n")
    return len(found) <= _LONGEST and (digits.isdigit() or not digits)
