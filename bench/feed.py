"""Consumers: how soon they hear of a commit, how fast they catch up, and what a thousand of them cost the mirror."""

from __future__ import annotations

import gc
import hashlib
import itertools
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import trio
import trio.testing

from bench import blocks
from bench import store as store_bench
from bench.building import ROOT
from bench.measuring import Row, in_turns
from bench.reorg import resident
from supervm_rt.chain.types import ForkRules
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import RawBlock
from supervm_rt.model.chain import ForkMode
from supervm_rt.runtime.retention import prune
from supervm_rt.store import BlockInput, Mirror, Store
from supervm_rt.store.feed import Feed, Subscription, open_feed
from supervm_rt.store.feed.reader import PAGE_EVENTS
from supervm_rt.store.feed.retention import Kept, Retention, Sweeper

EVENTS, QUICK_EVENTS = 1_000_000, 50_000
COMMITS, QUICK_COMMITS = 2_000, 200
SUBSCRIBERS = 1_000
HELD = 128
"""KiB that a subscriber to events without blocks may hold."""
PRUNED, QUICK_PRUNED = 100_000, 5_000
KEPT = 1_000
UNPRUNED_COMMITS = 1_000
LINKED = 600
"""Blocks: over a second of mirroring, in which consumers are woken again and again."""
RULES = ForkRules(mode=ForkMode.LONGEST, final_depth=100, orphan_limit=16)


def rows(quick: bool) -> Iterator[Row]:
    """Latency, catching up, a thousand subscribers, deleting old events."""
    with tempfile.TemporaryDirectory(prefix="supervm-bench-", dir=ROOT / "build") as name:
        yield from _latency(Path(name) / "latency.db", QUICK_COMMITS if quick else COMMITS)
        yield from _catching_up(Path(name) / "long.db", QUICK_EVENTS if quick else EVENTS)
        yield from _thousand(Path(name), quick)
        yield from _pruning(Path(name), quick)


class _Growing:
    """A chain of small blocks without content."""

    def __init__(self, path: Path, *, goes_on: _Growing | None = None, durable: bool = False) -> None:
        """``goes_on``: in a copy of that one's store."""
        self.store = Store.open(path, durable=durable)
        self._translator = DevTranslator()
        self.mirror: Mirror = self.store.mirror("bench", translator=self._translator, rules=RULES)
        self._height: int = 0 if goes_on is None else goes_on._height
        self._parent: bytes = b"\xff" * 32 if goes_on is None else goes_on._parent

    def next(self) -> BlockInput:
        hash_ = hashlib.sha256(self._height.to_bytes(8, "big")).digest()
        claims = RawBlock(hash_[:8], hash_=hash_, parent=self._parent, height=self._height, weight=1)
        self._parent, self._height = hash_, self._height + 1
        return BlockInput(self._translator.translate(claims), claims)

    def grow(self, count: int) -> int:
        """How many events it was."""
        return sum(len(one.events) for one in self.mirror.apply("bench", [self.next() for _ in range(count)]))


def _latency(path: Path, commits: int) -> Iterator[Row]:
    growing = _Growing(path)
    delays = trio.run(_hear, growing, commits, False)
    across = trio.run(_hear, growing, commits, True)
    growing.store.close()
    for name, found in (("in process", delays), ("through the lock file", across)):
        for part, value in (("p50", statistics.median(found)), ("p99", statistics.quantiles(found, n=100)[98])):
            yield Row(f"commit to subscriber, {name}, {part}", value * 1e6, None, "µs", "from the end of the commit's thread")


async def _hear(growing: _Growing, commits: int, across: bool) -> list[float]:
    delays: list[float] = []
    committed = [0.0]
    heard = trio.Event()

    async def listen(subscription: Subscription) -> None:
        nonlocal heard
        async for _ in subscription:
            delays.append(time.perf_counter() - committed[0])
            heard.set()

    def commit() -> int:
        count = growing.grow(1)
        committed[0] = time.perf_counter()
        return count

    async def drive(feed: Feed) -> None:
        nonlocal heard
        async with trio.open_nursery() as nursery:
            # New blocks only: with a depth of finality each commit has two events, which come together.
            nursery.start_soon(listen, feed.subscribe("bench", start="now"))
            await trio.sleep(0.05)
            for _ in range(commits):
                heard = trio.Event()
                count = await trio.to_thread.run_sync(commit)
                if not across:
                    feed.ring(count)
                await heard.wait()
            nursery.cancel_scope.cancel()

    if across:
        async with open_feed(growing.store.path) as feed:
            await drive(feed)
    else:
        feed = Feed.at(growing.store.path, told=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            await drive(feed)
            nursery.cancel_scope.cancel()
    return delays


def _catching_up(path: Path, events: int) -> Iterator[Row]:
    growing = _Growing(path)
    done = 0
    while done < events:
        done += growing.grow(1_000)
    growing.store.close()

    def ours() -> float:
        begun = time.perf_counter()
        count = trio.run(_read_all, path)
        assert count == done
        return count / (time.perf_counter() - begun)

    def plain() -> float:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        begun = time.perf_counter()
        count = 0
        for _ in connection.execute(
            "SELECT e.sequence, e.step, b.hash, b.height, b.parent, b.time FROM events e JOIN blocks b ON b.id = e.block"
            " WHERE e.chain = 1 ORDER BY e.sequence"
        ):
            count += 1
        elapsed = time.perf_counter() - begun
        connection.close()
        assert count == done
        return count / elapsed

    rates = in_turns({"ours": ours, "plain": plain}, 5)
    yield Row(
        f"one reader catching up over {done:,} events", rates["ours"], rates["plain"], "events/s", "peer: sqlite3, the same rows"
    )


async def _read_all(path: Path) -> int:
    count = 0
    async with open_feed(path) as feed:
        async for _ in feed.subscribe("bench", follow=False):
            count += 1
    return count


def _thousand(folder: Path, quick: bool) -> Iterator[Row]:
    """Real blocks, translated and committed as a node does, with and without subscribers, in turns."""
    real = list(blocks.mainnet().values()) or [blocks.sample_segwit()] * 20
    chain = blocks.relinked(real, LINKED // (5 if quick else 1))
    size = sum(map(len, chain)) / 1e6
    numbers = itertools.count()
    told: list[int] = []

    def mirror(subscribers: int, *, batches: bool = False) -> float:
        for old in folder.glob("mirror-*"):
            old.unlink()
        seconds, events = trio.run(_mirror, chain, folder / f"mirror-{next(numbers)}.db", subscribers, batches)
        told.append(events)
        return size / seconds

    ways = {
        "with": lambda: mirror(SUBSCRIBERS),
        "without": lambda: mirror(0),
        "batches": lambda: mirror(SUBSCRIBERS, batches=True),
        "again": lambda: mirror(0),
    }
    rates = in_turns(ways, 3 if quick else 15)
    yield Row("mirror with no subscribers to none", rates["again"], rates["without"], "MB/s", "what of the next rows is noise")
    note = f"half of them stuck; {len(chain)} blocks, {size:.0f} MB; {max(told):,} events told meanwhile"
    yield Row(f"mirror with {SUBSCRIBERS:,} subscribers to none", rates["with"], rates["without"], "MB/s", note, 1.0)
    note = "the same, but live ones take what there is at once (batch)"
    yield Row(f"mirror with {SUBSCRIBERS:,} that take batches to none", rates["batches"], rates["without"], "MB/s", note, 1.0)
    before = resident()
    stuck = trio.run(_hold, folder, next(numbers))
    note = f"a page of {PAGE_EVENTS} events each; peer: what docs/consuming.md says at most; smaller is better"
    bound = SUBSCRIBERS * HELD / 1e3
    yield Row(f"memory of {SUBSCRIBERS:,} stuck subscribers to its bound", stuck - before, bound, "MB", note, 1.0)


async def _mirror(chain: list[bytes], path: Path, subscribers: int, batches: bool = False) -> tuple[float, int]:
    """Seconds for all blocks but the first, once all subscribers wait; and how many events they were told by then."""
    translator = BitcoinTranslator("regtest")
    store = Store.open(path)
    mirror = store.mirror("bitcoin", translator=translator, rules=store_bench.RULES)
    told = started = 0

    async def live(subscription: Subscription) -> None:
        nonlocal told, started
        await anext(subscription)
        started += 1
        if batches:
            while events := await subscription.batch():
                told += len(events)
        async for _ in subscription:
            told += 1

    async def stuck(subscription: Subscription) -> None:
        nonlocal started
        await anext(subscription)
        started += 1
        await trio.sleep_forever()

    def translate(raws: list[bytes]) -> list[BlockInput]:
        return [BlockInput(translator.translate(claims), claims) for claims in map(RawBlock, raws)]

    async def commit(raws: list[bytes]) -> None:
        inputs = await trio.to_thread.run_sync(translate, raws)
        applied = await trio.to_thread.run_sync(mirror.apply, "bench", inputs)
        feed.ring(sum(len(one.events) for one in applied))

    feed = Feed.at(path, told=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await commit(chain[:1])
        for number in range(subscribers):
            nursery.start_soon(live if number % 2 else stuck, feed.subscribe("bitcoin"))
        while started < subscribers:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.1)
        told = 0
        # What making the subscribers left behind is not collected at the mirror's cost.
        await trio.to_thread.run_sync(gc.collect)
        begun = time.perf_counter()
        for at in range(1, len(chain), 4):
            await commit(chain[at : at + 4])
        seconds = time.perf_counter() - begun
        nursery.cancel_scope.cancel()
    store.close()
    return seconds, told


def _pruning(folder: Path, quick: bool) -> Iterator[Row]:
    """What a mirror waits for each commit, while old events are deleted beside it as a node does, and without; in turns."""
    prepared = folder / "prune.db"
    growing = _Growing(prepared)
    events = QUICK_PRUNED if quick else PRUNED
    done = 0
    while done < events + 2 * KEPT:
        done += growing.grow(1_000)
    growing.store.close()
    ways = ("with", "without", "again")
    waits: dict[str, list[list[float]]] = {way: [] for way in ways}

    def commit(way: str) -> float:
        for old in folder.glob("pruned-*"):
            old.unlink()
        path = folder / f"pruned-{len(waits[way])}.db"
        shutil.copyfile(prepared, path)
        found = trio.run(_commit_beside, path, growing, events if way == "with" else 0)
        waits[way].append(found)
        return statistics.median(found)

    in_turns({way: partial(commit, way) for way in ways}, 3 if quick else 7)

    def medians(part: Callable[[list[float]], float]) -> list[float]:
        return [statistics.median(map(part, waits[way][1:])) * 1e3 for way in ways]

    note = f"{events:,} events; from asking for the store's turn to the end of the commit; smaller is better"
    for name, part in (
        ("p50", statistics.median),
        ("p99", lambda found: statistics.quantiles(found, n=100)[98]),
        ("max", max),
    ):
        beside, alone, again = medians(part)
        yield Row(f"commit while no events are deleted to the same, {name}", again, alone, "ms", "what of the next row is noise")
        yield Row(f"commit while events are deleted to none, {name}", beside, alone, "ms", note)


async def _commit_beside(path: Path, made: _Growing, prune_events: int) -> list[float]:
    """How long each commit took, in seconds, of one block each, one after another, until so many events were deleted; 0: none."""
    growing = _Growing(path, goes_on=made, durable=True)
    reader = Store.open(path, read_only=True)
    turn = trio.Lock()
    found: list[float] = []

    def first() -> int:
        with growing.store.snapshot() as connection:
            return int(connection.execute("SELECT min(sequence) FROM events").fetchone()[0])

    async def mirror() -> None:
        block = growing.next()
        begun = time.perf_counter()
        async with turn:
            await trio.to_thread.run_sync(growing.mirror.apply, "bench", [block])
        found.append(time.perf_counter() - begun)

    before = first()
    async with trio.open_nursery() as nursery:
        if prune_events:
            retention = Retention(Kept(0, KEPT))
            nursery.start_soon(prune, turn, growing.store, reader, retention, Sweeper(retention))
        while first() - before < prune_events or len(found) < UNPRUNED_COMMITS * (not prune_events):
            await mirror()
        nursery.cancel_scope.cancel()
    reader.close()
    growing.store.close()
    return found


async def _hold(folder: Path, number: int) -> float:
    path = folder / f"held-{number}.db"
    growing = _Growing(path)
    growing.grow(1_000)
    async with open_feed(path) as feed:
        held = [feed.subscribe("bench", follow=False) for _ in range(SUBSCRIBERS)]
        for subscription in held:
            await anext(subscription)
        memory = resident()
    growing.store.close()
    return memory
