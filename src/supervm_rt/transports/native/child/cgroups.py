"""Control groups, where this host may make them: version 2 where it was delegated, else version 1, else none."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "supervm-"
PERIOD = 100_000
"""Microseconds in which a share of the processors is counted."""
RESOURCES = ("memory", "cpu", "tasks")
_CONTROLLERS = {"memory": "memory", "cpu": "cpu", "tasks": "pids"}
_NAME = re.compile(rf"{PREFIX}(\d+)-(\d+)-\d+")
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a group allows at most; None: no limit."""

    memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    """Cores."""
    tasks: int | None = None
    """Processes and threads."""


@dataclass(frozen=True, slots=True)
class Bases:
    """Where groups can be made: the folder for each resource, and which version that is."""

    version: int
    folders: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Throttling:
    """What the kernel counts of a group's processor time."""

    periods: int
    """In which it had something to do."""
    throttled: int
    """Those of them in which it used up its share."""


class Group:
    """One group, with a folder for each resource (the same one for all under version 2). ``remove`` takes it away again."""

    def __init__(self, bases: Bases, quotas: Quotas) -> None:
        """Makes it. What cannot be enforced is left out: see ``enforces``."""
        self.version = bases.version
        name = f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}-{next(_counter)}"
        self._folders: dict[str, Path] = {}
        for resource, base in bases.folders.items():
            wanted = getattr(quotas, resource)
            if wanted is None:
                continue
            folder = base / name
            try:
                folder.mkdir(mode=0o755, exist_ok=True)
            except OSError:
                continue
            self._folders[resource] = folder
            try:
                _limit(bases.version, resource, wanted, folder)
            except OSError:
                del self._folders[resource]
                if folder not in self._folders.values():
                    with contextlib.suppress(OSError):
                        folder.rmdir()

    @property
    def enforces(self) -> frozenset[str]:
        """The resources whose limit is in force."""
        return frozenset(self._folders)

    @property
    def folders(self) -> list[Path]:
        """What a process has to join."""
        return list(dict.fromkeys(self._folders.values()))

    def killed_for_memory(self) -> int:
        """How many processes of the group the kernel ended for want of memory: its own count, which no plugin can forge."""
        folder = self._folders.get("memory")
        if folder is None:
            return 0
        with contextlib.suppress(OSError):
            text = (folder / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
            found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
            return int(found[1]) if found else 0
        return 0

    def throttling(self) -> Throttling | None:
        """How often it was held back; None: the kernel does not say."""
        folder = self._folders.get("cpu")
        if folder is None:
            return None
        with contextlib.suppress(OSError):
            counts = dict(re.findall(r"^(\w+) (\d+)$", (folder / "cpu.stat").read_text(), re.MULTILINE))
            if {"nr_periods", "nr_throttled"} <= counts.keys():
                return Throttling(int(counts["nr_periods"]), int(counts["nr_throttled"]))
        return None

    def remove(self) -> bool:
        """Takes the group away. False: something is still in it."""
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


def _limit(version: int, resource: str, wanted: float, folder: Path) -> None:
    if resource == "memory":
        (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(str(wanted))
        # No way out over swap, where that is counted.
        swap, value = ("memory.swap.max", "0") if version == 2 else ("memory.memsw.limit_in_bytes", str(wanted))
        with contextlib.suppress(OSError):
            (folder / swap).write_text(value)
    elif resource == "tasks":
        (folder / "pids.max").write_text(str(wanted))
    elif version == 2:
        (folder / "cpu.max").write_text(f"{round(wanted * PERIOD)} {PERIOD}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
        (folder / "cpu.cfs_quota_us").write_text(str(round(wanted * PERIOD)))


# ---- where --------------------------------------------------------------------------------------------------------------


def find_bases(proc: Path = Path("/proc/self")) -> Bases | None:
    """Where groups can be made here; None: nowhere. Clears what a killed host left."""
    mounts = list(_mounts(proc / "mountinfo"))
    own = _own_groups(proc / "cgroup")
    found = _version_2(mounts, own) or _version_1(mounts, own)
    if found is not None:
        for base in dict.fromkeys(found.folders.values()):
            _clear(base)
    return found


def _lines(path: Path) -> list[str]:
    """Names in it may be any bytes but that of a line's end."""
    return [os.fsdecode(line) for line in path.read_bytes().split(b"\n") if line]


def _mounts(path: Path) -> Iterator[tuple[str, str, Path, frozenset[str]]]:
    """Type, root, mount point and options of each mounted hierarchy."""
    for line in _lines(path):
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        if kind in {"cgroup", "cgroup2"}:
            words = before.split()
            yield kind, words[3], Path(words[4]), frozenset(rest.split(" ", 1)[1].split(","))


def _own_groups(path: Path) -> dict[str, str]:
    """The path of this process's group for each controller; "" stands for version 2."""
    own = {}
    for line in _lines(path):
        _, controllers, group = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), group))
    return own


def _inside(root: str, mount: Path, group: str) -> Path:
    """Where a group lies below a mount that shows the hierarchy from root on."""
    below = group if root == "/" else group.removeprefix(root)
    return mount / below.lstrip("/")


def _version_2(mounts: list[tuple[str, str, Path, frozenset[str]]], own: dict[str, str]) -> Bases | None:
    for kind, root, mount, _ in mounts:
        if kind != "cgroup2" or "" not in own:
            continue
        base = _inside(root, mount, own[""])
        with contextlib.suppress(OSError):
            available = set((base / "cgroup.controllers").read_text().split())
            wanted = [name for name in _CONTROLLERS.values() if name in available]
            if wanted and os.access(base, os.W_OK) and _delegate(base, wanted):
                return Bases(2, {resource: base for resource, name in _CONTROLLERS.items() if name in wanted})
    return None


def _delegate(base: Path, controllers: list[str]) -> bool:
    """Lets groups below base have these controllers. A group with processes cannot: where this one is alone it moves down."""
    control = base / "cgroup.subtree_control"
    if set(controllers) <= set(control.read_text().split()):
        return True
    line = " ".join(f"+{name}" for name in controllers)
    with contextlib.suppress(OSError):
        control.write_text(line)
        return True
    if (base / "cgroup.procs").read_text().split() != [str(os.getpid())]:
        return False
    leaf = base / "supervm-host"
    leaf.mkdir(exist_ok=True)
    (leaf / "cgroup.procs").write_text("0")
    control.write_text(line)
    return True


def _version_1(mounts: list[tuple[str, str, Path, frozenset[str]]], own: dict[str, str]) -> Bases | None:
    folders = {}
    for resource, controller in _CONTROLLERS.items():
        for kind, root, mount, options in mounts:
            if kind != "cgroup" or controller not in options or controller not in own:
                continue
            base = _inside(root, mount, own[controller])
            if base.is_dir() and os.access(base, os.W_OK):
                folders[resource] = base
                break
    return Bases(1, folders) if folders else None


def _clear(base: Path) -> None:
    """Removes groups whose host is gone. Their processes ended with it."""
    for folder in base.glob(f"{PREFIX}*"):
        match = _NAME.fullmatch(folder.name)
        if match is not None and start_time(int(match[1])) != int(match[2]):
            with contextlib.suppress(OSError):
                folder.rmdir()


def start_time(process: int) -> int:
    """When a process began, in ticks since the machine did; -1: there is none of that number."""
    try:
        return int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return -1
