"""What plugins could leave behind in this process, below it and on this machine, so that a test can say that nothing is."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from supervm_rt.transports.native.child.host import program

_SET_CHILD_SUBREAPER = 36
_SECONDS = 10.0


class Remains(NamedTuple):
    """Of this process: other nodes may run on the same machine."""

    places: set[Path]
    """Folders, and what is mounted in them."""
    processes: set[int]
    """That live, below this one."""
    descriptors: Counter[str]
    """Open ones, by what they are of."""


def places() -> set[Path]:
    return {path for folder in ("/run", "/var/tmp") for path in Path(folder).glob(f"supervm-{os.getpid()}-*")}


def remains() -> Remains:
    return Remains(places(), set(_descendants()), _descriptors())


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails where something is left that was not there before. The kernel may take a moment to end a whole namespace."""
    _adopt(True)
    for kept in ("supervm-launch", "supervm-enter"):  # read once and kept for good
        program(kept)
    try:
        before = remains()
        yield
        deadline = time.monotonic() + _SECONDS
        while (left := remains()) != before and time.monotonic() < deadline:
            time.sleep(0.01)
        for what, now, then in zip(Remains._fields, left, before, strict=True):
            assert now == then, f"{what}: {now} were {then}{_told(left)}"
    finally:
        _adopt(False)


def _told(left: Remains) -> str:
    """What those processes are that are left."""
    said = []
    for process in left.processes:
        with contextlib.suppress(OSError):
            said.append(Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "; left: ".join(["", *said])


def _adopt(yes: bool) -> None:
    """Whether processes whose parent has gone are children of this one, and so are seen."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def _descendants() -> Iterator[int]:
    children: dict[int, list[tuple[int, str]]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent, *_ = stat.read_bytes().rpartition(b")")[2].decode().split()
            children.setdefault(int(parent), []).append((int(stat.parent.name), state))
    parents = [os.getpid()]
    while parents:
        for process, its_state in children.get(parents.pop(), ()):
            parents.append(process)
            if its_state != "Z":
                yield process


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found[str(link.readlink())] += 1
    return found
