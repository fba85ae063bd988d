"""The one folder that a plugin may write, and how much is in it."""

from __future__ import annotations

import os
from pathlib import Path

from supervm_rt.errors import ConfigurationError

INSIDE = "/storage"
"""Where a plugin finds it; also its working directory."""
MOST_ENTRIES = 10_000
"""Files and folders that may be in it."""


def make_folder(folder: Path, user: int | None) -> None:
    """Makes it where there is none, closed to others; ``user``: whose it is, None: the host's own. Raises ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o700)
            if user is not None:
                os.fchown(descriptor, user, user)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: it cannot be a plugin's storage ({error.strerror})", remedy="check the path and its permissions"
        ) from None


def measure(folder: Path) -> tuple[int, int]:
    """(bytes on the disk, files and folders) below it. Follows no link, and stops behind MOST_ENTRIES."""
    size = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= MOST_ENTRIES:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > MOST_ENTRIES:
                        break
                    status = entry.stat(follow_symlinks=False)
                    size += max(status.st_blocks * 512, status.st_size if entry.is_file(follow_symlinks=False) else 0)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:  # the plugin took it away meanwhile
            continue
    return size, entries
