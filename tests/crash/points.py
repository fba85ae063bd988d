"""Crash points: which there are, and what happens at one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any, Final

from tests.crash import replay, workload
from tests.crash.child import Ended, in_child
from tests.crash.judge import Prefix, Prefixes, Wrong, check_resumed, check_store, check_words, contents
from tests.crash.power import Call, Disk, read_journal
from tests.crash.shim import ERRORS, KILLS, Shim
from tests.crash.workload import STORE

POWER: Final = "power-cut"
ACTIONS: Final = ("kill", "kill-half", *ERRORS, POWER)
"""All that a campaign goes through. ``kill-after`` leaves the same files as ``kill`` at the next call."""
POWER_SEEDS: Final = 2
"""States tried for each place of a power cut; the first holds only what is certain."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins, and the calls that it makes."""

    name: str
    base: Path
    """The folder that it begins with."""
    blocks: int
    """In the store of that folder."""
    calls: tuple[Call, ...]
    """Of an undisturbed run; those of ``Shim.calls``, with the acknowledgements in between."""
    disk: Disk
    """The base as a machine has it that was just started; its files have the inodes that ``calls`` names."""
    answers: str = ""
    """Of a replay: all that it says."""

    @property
    def counted(self) -> list[Call]:
        """The n-th call is at n - 1."""
        return [call for call in self.calls if call.kind != "A"]


@dataclass(frozen=True, slots=True)
class Point:
    """One place, and what happens there."""

    start: str
    action: str
    at: int
    """The number of the call, from 1; of a power cut, how many calls (acknowledgements too) were made before."""
    seed: int = 0
    """Of a power cut."""

    def __str__(self) -> str:
        return f"{self.start} {self.action} {self.at}" + (f" seed {self.seed}" if self.action == POWER else "")


class Grounds:
    """What the points of one process share: a scratch folder, the library, the right answers."""

    def __init__(self, scratch: Path, shim: Shim, prefixes: Prefixes) -> None:
        self.scratch = scratch
        self.folder = scratch / "folder"
        self.output = scratch / "output"
        self.vectors = scratch / "vectors"
        self.shim = shim
        self.prefixes = prefixes

    def plain(self, words: str) -> str:
        """Without the names of folders, which are others in every run."""
        return re.sub(r"/supervm-replay-\w+", "", words.replace(str(self.folder), "..."))

    def begin(self, base: Path | None) -> None:
        """The folder becomes a copy of ``base``, or empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if base is None:
            self.folder.mkdir(parents=True)
        else:
            shutil.copytree(base, self.folder)

    def run(self, before: int, action: str = "", at: int = 0, journal: Path | None = None) -> int:
        """One run in this process, under the library; the exit status."""
        workload.output_to(self.output)
        workload.prepare(self.shim.acknowledge, before=before)
        self.shim.arm(self.folder, action, at, journal)
        try:
            return workload.run(self.folder)
        finally:
            self.shim.disarm()

    def go_on(self) -> None:
        """A further run, which has to complete what there is."""
        workload.output_to(self.output)
        workload.prepare(None)
        self.shim.arm(self.folder)  # for want of nothing but speed: a sync that nobody looks at is not made
        try:
            status = workload.run(self.folder)
        finally:
            self.shim.disarm()
        check_resumed(self.folder, self.prefixes, status, self.output)


def right_answers(grounds: Grounds) -> dict[int, Prefix]:
    """Feeds one block after the other, and looks at the store each time; the end is that of a run as users have it."""

    def one_by_one() -> list[tuple[int, str, str]]:
        found = []
        workload.output_to(grounds.output)
        workload.prepare(lambda _: found.append(contents(grounds.folder)), sizes=(1,))
        if workload.run(grounds.folder) != 0:
            raise Wrong(grounds.output.with_suffix(".err").read_text())
        return found

    def undisturbed() -> tuple[int, str, str]:
        workload.output_to(grounds.output)
        if workload.run(grounds.folder) != 0:
            raise Wrong(grounds.output.with_suffix(".err").read_text())
        return contents(grounds.folder)

    grounds.begin(None)
    steps = _answer(in_child(one_by_one))
    prefixes = {blocks: Prefix(digest, position) for blocks, digest, position in steps}
    if list(prefixes) != list(range(1, len(prefixes) + 1)):
        raise Wrong("the input has blocks that are not stored, or comes in larger steps than one")
    grounds.begin(None)
    blocks, digest, position = _answer(in_child(undisturbed))
    if prefixes.get(blocks) != Prefix(digest, position) or blocks != len(prefixes):
        raise Wrong("fed block by block, the store differs from that of an undisturbed run")
    return prefixes


def record(grounds: Grounds, name: str, base: Path, blocks: int) -> Start:
    """Takes down an undisturbed run; and that another one makes the same calls."""
    journal = grounds.scratch / f"{name}.journal"

    def run() -> int:
        if grounds.run(blocks, journal=journal) != 0:
            raise Wrong(grounds.output.with_suffix(".err").read_text())
        return grounds.shim.calls

    runs: list[tuple[int, Disk, list[Call]]] = []
    for _ in range(2):
        grounds.begin(base)
        disk = Disk(grounds.folder)
        runs.append((_answer(in_child(run)), disk, read_journal(journal)))
    (counted, disk, calls), (_, _, again) = runs
    start = Start(name, base, blocks, tuple(calls), disk)
    for number, (one, other) in enumerate(zip_longest(calls, again), start=1):
        if one is None or other is None or one.shape() != other.shape():
            raise Wrong(f"the calls of a run ({name}) cannot be told by their numbers: {number} is {one} and {other}")
    if counted != len(start.counted):
        raise Wrong(f"{counted} calls were counted ({name}), and {len(start.counted)} noted")
    return start


def starts(grounds: Grounds, wanted: str | None) -> Iterator[Start]:
    """Runs that begin with nothing, and with what a kill in the middle of a transaction has left; a replay. Or one of them."""
    empty = grounds.scratch / "empty"
    empty.mkdir()
    if wanted in {None, "replay"}:
        yield _replayed(grounds, empty)
    if wanted == "replay":
        return
    fresh = record(grounds, "fresh", empty, 0)
    _check_coverage(fresh)
    if wanted in {None, "fresh"}:
        yield fresh
    if wanted in {None, "resumed"}:
        yield _resumed(grounds, fresh)


def _check_coverage(fresh: Start) -> None:
    """That the workload holds what its points are said to go through."""
    copied: list[int] = []  # pages of the log that were copied into the store, after each transaction and at the end
    spilled = False
    pages: list[bytes] = []
    copies = 0
    for call in fresh.calls:
        if call.kind == "W" and call.name == f"{STORE}-wal" and len(call.data) == 24:
            pages.append(call.data[:4])
        elif call.kind == "W" and call.name == STORE:
            copies += 1
        elif call.kind == "A":
            # A page that is in the log twice was written before its transaction was complete.
            spilled = spilled or len(set(pages)) < len(pages) - 10
            copied.append(copies)
            pages, copies = [], 0
    shrunk = any(call.kind == "T" and call.name == f"{STORE}-wal" for call in fresh.calls)
    if not (spilled and shrunk and copies and sum(map(bool, copied)) >= 4 and not all(copied)):
        raise Wrong(f"the workload lost what it is for: {spilled=} {shrunk=} {copies=} {copied=}")


def _resumed(grounds: Grounds, fresh: Start) -> Start:
    middle = next(
        number
        for number, call in enumerate(fresh.counted, start=1)
        if call.kind == "W" and len(call.data) > 1000 and number > len(fresh.counted) * 3 // 5
    )
    grounds.begin(fresh.base)
    if in_child(lambda: grounds.run(0, "kill-half", middle)).signal != SIGKILL:
        raise Wrong("the run was not killed")
    killed = grounds.scratch / "killed"
    shutil.copytree(grounds.folder, killed)
    blocks = _answer(in_child(lambda: check_store(grounds.folder, grounds.prefixes, for_writing=False)))
    return record(grounds, "resumed", killed, blocks)


def _replayed(grounds: Grounds, empty: Path) -> Start:
    """There is nothing to go on with, so it meets errors only."""

    def run() -> tuple[int, int, str]:
        status = replay.replay(grounds.shim, grounds.folder, grounds.vectors, grounds.output)
        return status, grounds.shim.calls, grounds.output.with_suffix(".out").read_text()

    grounds.begin(empty)
    status, calls, answers = _answer(in_child(run))
    if status != 0:
        raise Wrong(grounds.output.with_suffix(".err").read_text())
    return Start("replay", empty, 0, (Call("?", 0, 0, "", "", b""),) * calls, Disk(empty), answers)


def points(start: Start, actions: tuple[str, ...], seeds: int) -> Iterator[Point]:
    """All of them, in order of their calls; ``seeds`` states for each place of a power cut."""
    for number, call in enumerate(start.counted, start=1):
        for action in actions:
            if start.answers and action not in ERRORS:
                continue
            halves = call.kind == "?" or (call.kind == "W" and len(call.data) > 1)
            if action != POWER and (halves or action not in {"kill-half", "short"}):
                yield Point(start.name, action, number)
    if POWER in actions and not start.answers:
        for number in range(len(start.calls) + 1):
            for seed in range(seeds):
                yield Point(start.name, POWER, number, seed)


def crash(grounds: Grounds, start: Start, point: Point) -> str:
    """Kills the run there, or lets a call fail, and judges. Returns the run's last words. Raises Wrong."""
    grounds.begin(start.base)
    grounds.shim.forget()
    if start.answers:
        return grounds.plain(_answer(in_child(lambda: _replay(grounds, start, point))))
    if point.action in KILLS:
        killed = in_child(lambda: grounds.run(start.blocks, point.action, point.at))
        if killed.signal != SIGKILL:
            raise Wrong(f"the run was not killed: {killed.failure or killed.answer}")
        acknowledged = grounds.shim.acknowledged
        _answer(in_child(lambda: _recover(grounds, start, acknowledged, writing=point.at % 2 == 0)))
        return ""

    def survive() -> str:
        status = grounds.run(start.blocks, point.action, point.at)
        if grounds.shim.fired == 0:
            raise Wrong("the call was not reached")
        stored = check_store(grounds.folder, grounds.prefixes, for_writing=point.at % 2 == 0)
        if stored < max(grounds.shim.acknowledged, start.blocks):
            raise Wrong(f"{grounds.shim.acknowledged} blocks were acknowledged, and {stored} are stored")
        words = check_words(status, stored, len(grounds.prefixes), grounds.output)
        # In the same process: what a failed run holds would be in the way of the next one.
        grounds.go_on()
        return words

    return grounds.plain(_answer(in_child(survive)))


def _replay(grounds: Grounds, start: Start, point: Point) -> str:
    status = replay.replay(grounds.shim, grounds.folder, grounds.vectors, grounds.output, point.action, point.at)
    if grounds.shim.fired == 0:
        raise Wrong("the call was not reached")
    return replay.check(status, grounds.folder, grounds.output, start.answers, grounds.shim.what)


def cut_power(grounds: Grounds, start: Start, disk: Disk, point: Point, seen: set[object]) -> bool:
    """Begins with what a power cut leaves, and judges. False where that was seen before."""
    files = disk.cut(Random(f"{point}") if point.seed else None)
    fingerprint = hash(tuple(sorted(files.items()))), disk.acknowledged
    if fingerprint in seen:
        return False
    seen.add(fingerprint)
    grounds.begin(None)
    for name, content in files.items():
        (grounds.folder / name).write_bytes(content)
    _answer(in_child(lambda: _recover(grounds, start, disk.acknowledged, writing=point.at % 2 == 0)))
    return True


def _recover(grounds: Grounds, start: Start, acknowledged: int, *, writing: bool) -> None:
    stored = check_store(grounds.folder, grounds.prefixes, for_writing=writing)
    if stored < max(acknowledged, start.blocks):
        raise Wrong(f"{acknowledged} blocks were acknowledged, and {stored} are stored")
    grounds.go_on()


def _answer(ended: Ended) -> Any:
    if ended.signal or ended.failure:
        raise Wrong(ended.failure or f"killed by signal {ended.signal}")
    return ended.answer


Report = Callable[[Point, str, str], None]
"""A point, what was wrong there (empty: nothing), the run's last words."""


def go_through(grounds: Grounds, start: Start, chosen: list[Point], report: Report) -> None:
    """Tries all of these, which belong to this start."""
    for point in chosen:
        if point.action != POWER:
            _try(point, lambda point=point: crash(grounds, start, point), report)  # type: ignore[misc]
    cuts = sorted((point for point in chosen if point.action == POWER), key=lambda point: (point.at, point.seed))
    disk, made = start.disk, 0
    seen: set[object] = set()
    for point in cuts:
        while made < point.at:
            disk.take(start.calls[made])
            made += 1
        _try(point, lambda point=point: "" if cut_power(grounds, start, disk, point, seen) else None, report)  # type: ignore[misc]


def _try(point: Point, action: Callable[[], str | None], report: Report) -> None:
    try:
        words = action()
    except Wrong as error:
        report(point, str(error), "")
    else:
        if words is not None:
            report(point, "", words)
