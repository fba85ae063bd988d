"""One row: ours and a peer, in turns in the same run, on the same CPUs; the median of each."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROUNDS = 5

T = TypeVar("T")

Rate = Callable[[], float]
"""Does the work once and answers how fast it went, in the row's unit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    ours: float
    peer: float | None
    unit: str
    note: str = ""
    aim: float | None = None
    """The ratio that is aimed at."""
    peers: Mapping[str, float] = field(default_factory=dict)
    """Each peer by itself, where there are several; ``peer`` is the best of those that do the same work."""

    @property
    def ratio(self) -> float | None:
        """Ours in terms of the peer."""
        return self.ours / self.peer if self.peer else None


def turns(runs: Mapping[str, Callable[[], T]], rounds: int = ROUNDS) -> dict[str, list[T]]:
    """What each found in the rounds, in each of which all run, one after another; one round before does not count."""
    results: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            found = run()
            if number:
                results[name].append(found)
    return results


def in_turns(runs: Mapping[str, Rate], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of each over such rounds."""
    return {name: statistics.median(values) for name, values in turns(runs, rounds).items()}


def cpus() -> tuple[int, int]:
    """The consumer's CPU and the producer's: the first and the last that this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


def left_out(what: str, why: str) -> None:
    """Says that rows are missing."""
    print(f"left out: {what}: {why}", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    processor, family, model, hashing = platform.processor(), "?", "?", False
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            processor = value
        elif key == "cpu family":
            family = value
        elif key == "model":
            model = value
        elif key == "flags":
            hashing = "sha_ni" in value.split()
    with Path("/proc/meminfo").open() as file:
        memory = int(file.readline().split()[1]) // (1 << 20)
    return {
        "processor": f"{processor} (family {family}, model {model}, {'with' if hashing else 'without'} SHA instructions)",
        "cpus": str(os.cpu_count()),
        "memory": f"{memory} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
