"""What a reorg costs, by depth and by the chain's length; and memory over a long chain."""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.building import ROOT
from bench.measuring import ROUNDS, Row
from supervm_rt.chain.types import ForkRules
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import RawBlock
from supervm_rt.model.chain import ForkMode, Step
from supervm_rt.store import BlockInput, Mirror, Store

DEPTHS = (1, 10, 100, 1000)
SHORT, LONG, QUICK = 1_000, 1_000_000, 20_000
RULES = ForkRules(mode=ForkMode.LONGEST, final_depth=1_100, orphan_limit=16)
BATCH = 1_000


class Growing:
    """One chain of small blocks in a store, whose tip can be grown and forked."""

    def __init__(self, path: Path) -> None:
        self.store = Store.open(path, durable=False)
        self.translator = DevTranslator()
        self.mirror: Mirror = self.store.mirror("bench", translator=self.translator, rules=RULES)
        self._numbers = itertools.count(1)
        self.hashes: list[bytes] = [bytes(32)]
        """The canonical chain's last ids, the first at ``base``."""
        self.base = 0
        self._apply(self._branch(b"", 0, 1)[1])

    @property
    def height(self) -> int:
        """Of the tip."""
        return self.base + len(self.hashes) - 1

    def _branch(self, parent: bytes, height: int, count: int) -> tuple[list[bytes], list[BlockInput]]:
        hashes, inputs = [], []
        for at in range(height, height + count):
            hash_ = hashlib.sha256(next(self._numbers).to_bytes(8, "big")).digest() if at else bytes(32)
            claims = RawBlock(hash_[:8], hash_=hash_, parent=parent or b"\xff", height=at, weight=1)
            inputs.append(BlockInput(self.translator.translate(claims), claims))
            hashes.append(hash_)
            parent = hash_
        return hashes, inputs

    def _apply(self, inputs: Sequence[BlockInput]) -> int:
        """How many blocks were undone."""
        return sum(event.step is Step.UNDO for one in self.mirror.apply("bench", inputs) for event in one.events)

    def grow(self, count: int) -> None:
        """Adds to the tip."""
        for start in range(0, count, BATCH):
            hashes, inputs = self._branch(self.hashes[-1], self.height + 1, min(BATCH, count - start))
            self._apply(inputs)
            self.hashes += hashes
            if len(self.hashes) > 4 * BATCH:
                self.base += len(self.hashes) - 2 * BATCH
                del self.hashes[: -2 * BATCH]

    def reorg(self, depth: int) -> float:
        """Seconds for the block that makes a side branch of depth + 1 blocks the canonical one, committed."""
        place = len(self.hashes) - 1 - depth
        hashes, inputs = self._branch(self.hashes[place], self.base + place + 1, depth + 1)
        if len(inputs) > 1:
            assert self._apply(inputs[:-1]) == 0
        begun = time.perf_counter()
        undone = self._apply(inputs[-1:])
        elapsed = time.perf_counter() - begun
        assert undone == depth
        self.hashes[place + 1 :] = hashes
        return elapsed


def resident() -> float:
    """This process's memory in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    raise OSError("no VmRSS in /proc/self/status")


def rows(quick: bool) -> Iterator[Row]:
    """Depths on a long chain beside a short one, in turns; in a process of its own, whose memory is that of the mirror alone."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as child:
        yield from child.submit(_measure, quick).result()


def _measure(quick: bool) -> list[Row]:
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="supervm-bench-", dir=ROOT / "build") as folder:
        length = QUICK if quick else LONG
        short, long = Growing(Path(folder) / "short.db"), Growing(Path(folder) / "long.db")
        short.grow(SHORT)
        long.grow(length // 10)
        early = resident()
        long.grow(length // 2 - length // 10)
        half = resident()
        long.grow(length - length // 2)
        late = resident()
        note = "smaller is better; 1 is: it is flat. The store's cache is full at 64 MiB"
        for at, memory in ((length // 10, early), (length // 2, half)):
            found.append(Row(f"memory at {length:,} blocks to {at:,}", late, memory, "MB", note, 1.0))
        # A reorg lengthens the chain by one block; the short one stays near its length.
        for depth in DEPTHS:
            times: dict[str, list[float]] = {"long": [], "short": []}
            for turn in range(ROUNDS + 1):
                for which, chain in (("short", short), ("long", long)):
                    if len(chain.hashes) - 1 < depth:
                        chain.grow(depth)
                    seconds = chain.reorg(depth)
                    if turn:
                        times[which].append(seconds * 1e3)
            found.append(
                Row(
                    f"reorg of depth {depth}, {length:,} blocks to {SHORT:,}",
                    statistics.median(times["long"]),
                    statistics.median(times["short"]),
                    "ms",
                    "committed, not synced; smaller is better; 1 is: the chain's length costs nothing",
                    1.0,
                )
            )
        short.store.close()
        long.store.close()
    return found
