"""Watches a child against the limits of its manifest: what has run out, and what the kernel does not enforce by itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from supervm_rt.model.manifest import Resources
from supervm_rt.transports.interface import Exhausted
from supervm_rt.transports.native.child.cgroups import Group, Throttling
from supervm_rt.transports.native.child.enforcing import OVERHEAD_BYTES
from supervm_rt.transports.native.child.storage import INSIDE, Storage, Way, excess

LOOK_SECONDS = 1.0
"""Between two looks at memory, storage and throttling."""
CPU_SECONDS = 0.1
"""Between two looks at the processor time that only the host limits."""
CPU_BURST = 1.0
CPU_DEBT = 10.0
"""So many seconds of its share may be used at once, and so many be owed at most."""
AGAIN_SECONDS = 600.0
"""What has run out is told again after so long."""
_ROOM = 1 / 8
_MOST_ROOM = 64 << 20
"""Of storage, and bytes of it: with less than this it counts as full, since a larger write fails."""
_MEMORY_ROOM = 1 / 16
"""Of what is granted: with less than this, a larger allocation fails."""
_SIZES = re.compile(rb"^(RssAnon|RssShmem|VmSwap|VmPTE|VmData):\s+(\d+) kB$", re.MULTILINE)
_THROTTLED_SHARE = 0.5
"""Of a second's periods: from here on a plugin wants more processor time than it has."""


@dataclass(slots=True)
class Watch:
    """Looks whenever it is asked to, as often as is worth it."""

    process: int
    """The runner, by its number here."""
    resources: Resources
    group: Group | None
    storage: Storage | None
    pauses: bool
    """Nothing but the host limits the processor time: the process is stopped while it is above its share."""
    used_memory: bool = False
    """What counts is the memory that it uses, not what it has reserved."""
    shared: int = 0
    """Bytes of memory that is the host's too."""
    paused: bool = False
    continued: float = 0.0
    """When the last pause ended, by the monotonic clock: only from then on it could give a sign of life."""
    _was_paused: bool = False
    """Since it was last looked at."""
    _pidfd: int = -1
    _looked: float = 0.0
    _told: dict[str, float] = field(default_factory=dict)
    _throttling: Throttling | None = None
    _cpu_looked: float = 0.0
    _cpu_used: float = 0.0
    _cpu_left: float = 0.0

    def __post_init__(self) -> None:
        """Raises OSError where the process has ended."""
        self._pidfd = os.pidfd_open(self.process)
        self._looked = self._cpu_looked = time.monotonic()
        self._cpu_used = self._processor_time()
        self._cpu_left = CPU_BURST * (self.resources.cpu or 0.0)

    def close(self) -> None:
        """May be called again."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    async def look(self) -> tuple[list[Exhausted], str]:
        """(what has run out since it was last told, why the plugin has to be ended; empty: it has not)."""
        now = time.monotonic()
        if self.pauses and now >= self._cpu_looked + CPU_SECONDS:
            self._pace(now)
        if now < self._looked + LOOK_SECONDS:
            return [], ""
        self._looked = now
        found, breach = self._memory()
        found += self._throttled()
        if self.storage is not None and self.storage.way is Way.IMAGE:
            found += self._full()
        elif self.storage is not None:
            it = (self.process, self._pidfd)
            breach = breach or await trio.to_thread.run_sync(excess, self.storage.path, self.resources.storage or 0, it)
        return [each for each in found if self._is_news(each, now)], breach

    def _is_news(self, found: Exhausted, now: float) -> bool:
        if now < self._told.get(found.resource, -AGAIN_SECONDS) + AGAIN_SECONDS:
            return False
        self._told[found.resource] = now
        return True

    # ---- storage -------------------------------------------------------------------------------------------------------------

    def _full(self) -> list[Exhausted]:
        """The host sees the file system through the process: it is mounted nowhere else."""
        with contextlib.suppress(OSError):
            found = os.statvfs(f"/proc/{self.process}/root{INSIDE}")
            size = self.resources.storage or 0
            if found.f_bavail * found.f_frsize < min(size * _ROOM, _MOST_ROOM) or found.f_favail == 0:
                return [Exhausted("storage", f"its storage of {size} bytes is nearly full: what does not fit is not written")]
        return []

    # ---- memory --------------------------------------------------------------------------------------------------------------

    def _memory(self) -> tuple[list[Exhausted], str]:
        """What is told of memory; and why it is too much. Where a group holds a library to it, the kernel sees to that alone."""
        most = self.resources.memory
        if most is None:
            return [], ""
        sizes: dict[bytes, int] = {}
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.process}/status").read_bytes()  # its name is any bytes
            sizes = {name: int(size) * 1024 for name, size in _SIZES.findall(status)}
        # The tables of what is only read count for no limit, and can take any size too. Rings are mapped twice.
        used = sum(sizes.get(name, 0) for name in (b"RssAnon", b"VmSwap", b"VmPTE"))
        used += max(sizes.get(b"RssShmem", 0) - 2 * self.shared, 0)
        grouped = self.group is not None and "memory" in self.group.enforces
        room = 0 if self.used_memory else OVERHEAD_BYTES + most // 256
        if used > most + room and (self.used_memory or not grouped):
            return [], f"it uses {used} bytes of memory of the {most} that it may"
        if (used if self.used_memory else sizes.get(b"VmData", 0)) > most * (1 - _MEMORY_ROOM):
            then = "with more it is ended" if self.used_memory else "it gets no more"
            return [Exhausted("memory", f"its memory of {most} bytes is nearly used up: {then}")], ""
        return [], ""

    # ---- processor time ------------------------------------------------------------------------------------------------------

    def _throttled(self) -> list[Exhausted]:
        if self._was_paused:
            self._was_paused = False
            return [self._short_of_time("it was stopped until it had some again")]
        if self.group is None or self.resources.cpu is None:
            return []
        before, self._throttling = self._throttling, self.group.throttling()
        if before is None or self._throttling is None:
            return []
        periods = self._throttling.periods - before.periods
        throttled = self._throttling.throttled - before.throttled
        if periods <= 0 or throttled < _THROTTLED_SHARE * periods:
            return []
        return [self._short_of_time(f"it was held back in {throttled} of the last {periods} periods")]

    def _short_of_time(self, how: str) -> Exhausted:
        return Exhausted("cpu", f"it wants more than the {self.resources.cpu:g} cores of its manifest: {how}")

    def _pace(self, now: float) -> None:
        """A bucket that fills with the plugin's share and is emptied by what it uses; below nothing it is stopped."""
        share = self.resources.cpu or 0.0
        used = self._processor_time()
        left = self._cpu_left + (now - self._cpu_looked) * share - (used - self._cpu_used)
        self._cpu_left = min(max(left, -CPU_DEBT * share), CPU_BURST * share)
        self._cpu_looked, self._cpu_used = now, used
        if self.paused != (self._cpu_left < 0):
            self._pause(not self.paused)

    def _pause(self, stop: bool) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP if stop else signal.SIGCONT)
            self.paused = stop
            if not stop:
                self.continued = time.monotonic()
            self._was_paused = self._was_paused or stop

    def let_go(self) -> None:
        """It may run on, to come to its end."""
        self.pauses = False
        if self.paused:
            self._pause(stop=False)

    def _processor_time(self) -> float:
        """Seconds that the process used so far."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{self.process}/stat").read_bytes().rpartition(b")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return self._cpu_used
