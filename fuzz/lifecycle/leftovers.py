"""What this process holds: threads, descriptors, mappings, slots, children, temporary files."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from supervm_rt._abi import slots_in_use

SETTLE_SECONDS = 10.0
"""How long what is about to end may take; nothing is waited for where nothing is left."""


@dataclass(frozen=True)
class Holdings:
    """At one moment."""

    threads: Counter[str]
    """By name; Trio's own, which wait for more work, are left out."""
    descriptors: Counter[str]
    mappings: Counter[str]
    """Of memfds: libraries and rings."""
    slots: int
    children: int

    def beyond(self, earlier: Holdings) -> str:
        """What is there now and was not then; empty where there is nothing."""
        more = []
        for name in ("threads", "descriptors", "mappings"):
            surplus = getattr(self, name) - getattr(earlier, name)
            if surplus:
                more.append(f"{name}: {dict(surplus)}")
        if self.slots > earlier.slots:
            more.append(f"slots: {self.slots - earlier.slots}")
        if self.children > earlier.children:
            more.append(f"children: {self.children - earlier.children}")
        return "; ".join(more)


def holdings() -> Holdings:
    """Now."""
    idle = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("Trio thread")}
    threads: Counter[str] = Counter()
    children = 0
    for task in Path("/proc/self/task").iterdir():
        try:
            children += len((task / "children").read_text().split())
            if int(task.name) not in idle:
                threads[(task / "comm").read_text().strip()] += 1
        except OSError:  # it has ended meanwhile
            continue
    descriptors: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the listing itself opens one, which is gone by then
        try:
            target = str(Path(f"/proc/self/fd/{number}").readlink())
        except OSError:
            continue
        descriptors[target.split(":", maxsplit=1)[0] if target.startswith(("pipe", "socket")) else target] += 1
    lines = Path("/proc/self/maps").read_text().splitlines()
    return Holdings(
        threads=threads,
        descriptors=descriptors,
        mappings=Counter(line.split(maxsplit=5)[5] for line in lines if "memfd:" in line),
        slots=slots_in_use(),
        children=children,
    )


def left_since(earlier: Holdings) -> str:
    """What is left once everything that is about to end has ended; empty where nothing is."""
    deadline = time.monotonic() + SETTLE_SECONDS
    collected = False
    while left := holdings().beyond(earlier):
        if time.monotonic() > deadline:
            break
        if not collected:  # only here: it takes longer than a whole story
            gc.collect()
            collected = True
        time.sleep(0.001)
    return left
