"""The one seam at which an error of SQLite or of the file system becomes an error that an operator can read."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from supervm_rt.errors import StoreCorrupt, StoreError, StoreFull

RESTORE = "restore it from a copy, or name a new file and mirror the chain again"
MAKE_ROOM = "make room and start again: everything up to the last commit is there"

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def from_sqlite(error: sqlite3.Error, path: Path) -> Exception:
    """Gives what is to be raised instead; the error itself where it tells of a mistake in this package."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return StoreCorrupt(f"the store {path} is damaged or not a store ({error})", remedy=RESTORE)
        case sqlite3.SQLITE_CONSTRAINT:  # never of a sound store
            return StoreCorrupt(f"the store {path} is damaged: it contradicts itself ({error})", remedy=RESTORE)
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"there is no room for the store {path} to grow ({error})", remedy=MAKE_ROOM)
        case sqlite3.SQLITE_IOERR if _is_full(path):
            return StoreFull(f"the disk that holds the store {path} is full ({error})", remedy=MAKE_ROOM)
        case sqlite3.SQLITE_IOERR:
            what, remedy = "cannot be read or written", "look at the disk and the kernel's log"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            what, remedy = "cannot be written", "give this user the right to write it and its folder"
        case sqlite3.SQLITE_CANTOPEN:
            what, remedy = "or a file beside it cannot be opened", "look at the rights of its folder"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            what, remedy = "is held by another program", "end that program and try again"
        case _:
            return error
    return StoreError(f"the store {path} {what} ({error})", remedy=remedy)


def from_system(error: OSError, path: Path, action: str) -> StoreError:
    """``action`` says what was tried, such as ``create``."""
    if error.errno in _NO_SPACE:
        return StoreFull(f"there is no room to {action} {path}", remedy=MAKE_ROOM)
    remedies = {
        errno.ENOENT: "create its folder first, or name another path",
        errno.ENOTDIR: "name a path whose folders exist",
        errno.EACCES: "give this user the right, or name another path",
        errno.EPERM: "give this user the right, or name another path",
        errno.EROFS: "the file system is read-only: name a path on another one",
    }
    return StoreError(f"cannot {action} {path} ({error.strerror})", remedy=remedies.get(error.errno or 0, "name another path"))


@contextlib.contextmanager
def seam(path: Path) -> Iterator[None]:
    """Translates what SQLite raises inside."""
    try:
        yield
    except sqlite3.Error as error:
        translated = from_sqlite(error, path)
        if translated is error:
            raise
        raise translated from error
    except UnicodeDecodeError as error:  # a text that SQLite gave, also one of its own messages that quotes the schema
        raise StoreCorrupt(f"the store {path} is damaged: it holds a text that is none", remedy=RESTORE) from error


@contextlib.contextmanager
def decoding(path: Path) -> Iterator[None]:
    """For turning rows into values: SQLite notices a damaged page by its structure, not by what stands in it."""
    try:
        yield
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise StoreCorrupt(
            f"the store {path} is damaged: it holds values that were never written ({error})", remedy=RESTORE
        ) from error


def _is_full(path: Path) -> bool:
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False
