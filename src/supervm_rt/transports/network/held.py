"""Which of the sockets that were handed over a plugin still has. It closes them without a word; the kernel knows."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_INODE = 9


def number_of(connected: socket.socket) -> int:
    """By what the kernel lists a socket, whoever has it."""
    return os.fstat(connected.fileno()).st_ino


def still_open(numbers: Iterable[int], tables: Iterable[str] = TABLES) -> set[int]:
    """Those that somebody has a descriptor of: a socket without one has no number any more. May take milliseconds.

    Where a table cannot be read, all of them: the bound then counts every socket that was ever handed over.
    """
    listed = set()
    try:
        for table in tables:
            if table.endswith("6") and not Path(table).exists():
                continue  # no IPv6 here
            with Path(table).open("rb") as lines:
                listed |= {
                    int(fields[_INODE]) for line in lines if len(fields := line.split()) > _INODE and fields[_INODE].isdigit()
                }
    except OSError:
        return set(numbers)
    return listed & set(numbers)
