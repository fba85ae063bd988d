"""Folders of one life of a plugin: for its socket, and for its image. What a killed host left goes with the next start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from supervm_rt.errors import HostError
from supervm_rt.transports.native.child.cgroups import start_time

UNPACKED = ".unpacked"
"""The folder of images, beside the plugins' folders: no plugin has a name that begins like this."""
_PLACE = re.compile(r"supervm-(\d+)-(\d+)-\w+")


class Place:
    """A folder, locked by a descriptor: that somebody has it can be seen also in another process namespace."""

    def __init__(self, folder: Path) -> None:
        """Makes it in this folder, and removes there what hosts that are gone left. Raises OSError."""
        clear_places(folder)
        self.path = Path(tempfile.mkdtemp(prefix=f"supervm-{os.getpid()}-{start_time(os.getpid())}-", dir=folder))
        try:
            self._lock = _lock(self.path)
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def remove(self) -> None:
        """Takes it away, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _lock(place: Path) -> int:
    """Raises OSError, a BlockingIOError where somebody else has it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def clear_places(folder: Path) -> None:
    """Removes what hosts that were killed left: the sockets and images of their plugins."""
    for place in folder.glob("supervm-*"):
        match = _PLACE.fullmatch(place.name)
        if match is not None and start_time(int(match[1])) != int(match[2]):
            with contextlib.suppress(OSError):
                lock = _lock(place)
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)


def for_socket() -> Place:
    """A place for a socket, by a short path, which supervm-launch does not cover. Raises HostError, OSError."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    for folder in ("/run", *([own] if own else []), "/var/tmp"):
        if os.access(folder, os.W_OK | os.X_OK):
            return Place(Path(folder))
    raise HostError("there is no folder for the sockets of plugins", remedy="set XDG_RUNTIME_DIR to one")


def for_image(storage: Path) -> Place:
    """A place for an unpacked image, beside a plugin's storage: on the store's disk, closed to others. Raises OSError."""
    folder = storage.parent / UNPACKED
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Place(folder)
