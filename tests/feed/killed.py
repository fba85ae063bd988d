"""Consumers, or the host, killed and started again at any moment, while a chain with reorgs is mirrored.

Arguments: a folder, ``sample`` or ``random``, ``consumers``, ``host`` or ``pruning``, how often something is killed, and a seed.
In place of ``random`` a JSON file that says which tree (``blocks``: see ``Drawn``) and which kills (``kills``: each a moment from
0 to 1, and a consumer).

The processes are forks of this one, which has all it needs loaded and no thread: so that a thousand lives cost seconds. The last
line printed says how many were killed, and that each consumer holds exactly the log.

``pruning`` kills the host while it deletes old events. One consumer comes back only when it is refused, and then begins anew; at
the end each cursor that was ever given is tried.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import trio

from supervm_rt.errors import CursorTooOld
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import RawBlock
from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.store import BlockInput, Input, Mirror, Store
from supervm_rt.store.feed import FeedEvent, Kept, Retention, open_feed
from supervm_rt.store.feed.retention import Sweeper, find_horizons, move_horizon, sweep
from tests.cli.support import SAMPLE_BLOCKS
from tests.feed.support import Drawn, Rebuilt, busy_inputs, consumer, log_of, read_all, told
from tests.sample.block_reader import read_folder
from tests.store.support import CHAIN, HEAVIEST, PLUGIN

CONSUMERS = 4
RULES = replace(HEAVIEST, final_depth=20, orphan_limit=1000)
KEPT = 300
RETENTION = Retention(Kept(0, KEPT), Kept(0, 2 * KEPT))
SWEPT = 3
"""Events that one transaction deletes: so few that a kill comes between two."""
BATCHES_BETWEEN = 12
SLOW = 0
"""The consumer that is refused, where old events are deleted."""


def inputs_of(source: str, seed: int) -> tuple[BitcoinTranslator | None, list[Input]]:
    """The sample chain as bitcoind wrote it, or a random tree."""
    if source == "random":
        return None, busy_inputs(seed, 3000)
    if source.endswith(".json"):
        return None, Drawn(json.loads(Path(source).read_text())["blocks"]).inputs(1000)
    translator = BitcoinTranslator("regtest")
    raw = map(RawBlock, read_folder(SAMPLE_BLOCKS, bytes.fromhex("fabfb5da")))
    return translator, [
        BlockInput(translator.translate(one), one, position=str(number).encode()) for number, one in enumerate(raw, start=1)
    ]


def fork(work: Callable[[], None]) -> int:
    """A child that does the work and ends without cleaning up."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        print(f"{work}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def moments(source: str, kills: int, seed: int) -> list[tuple[float, int]]:
    """For each kill how long to wait before, as a part of the longest time, and which consumer is meant."""
    if source.endswith(".json"):
        return [(moment, who) for moment, who in json.loads(Path(source).read_text())["kills"]]
    random = Random(seed)
    return [(random.random(), random.randrange(CONSUMERS)) for _ in range(kills)]


class Told(NamedTuple):
    step: Step
    block: BlockRef
    parent: bytes


class World:
    def __init__(self, folder: Path, source: str, seed: int, *, prunes: bool = False) -> None:
        self.store = folder / "chain.store"
        self.prunes = prunes
        self.pruning = mmap.mmap(-1, 1)
        """Of all processes: 1 while events are deleted."""
        self.folder = folder
        self.translator, self.inputs = inputs_of(source, seed)
        with Store.open(self.store) as store:
            self.mirror(store)

    def mirror(self, store: Store) -> Mirror:
        from supervm_rt.ir.dev import DevTranslator

        return store.mirror(CHAIN, translator=self.translator or DevTranslator(), rules=RULES)

    def write(self, pause: float) -> None:
        """Mirrors on from where it was, slowly enough for the others to live meanwhile."""
        with Store.open(self.store, durable=False) as store:
            mirror = self.mirror(store)
            done = int(store.position(PLUGIN, CHAIN) or b"0")
            random = Random(done)
            sweeper = Sweeper(RETENTION)
            batches = 0
            while done < len(self.inputs):
                count = random.randint(1, 4)
                mirror.apply(PLUGIN, self.inputs[done : done + count])
                done += count
                batches += 1
                if self.prunes and (batches % BATCHES_BETWEEN == 0 or done >= len(self.inputs)):
                    self.prune(store, sweeper)
                time.sleep(pause)

    def prune(self, store: Store, sweeper: Sweeper) -> None:
        self.pruning[0] = 1
        for horizon in find_horizons(store, RETENTION, time.time()):
            move_horizon(store, horizon)
        while found := sweeper.find(store, time.time(), SWEPT):
            sweep(store, found)
        self.pruning[0] = 0

    def consume(self, number: int) -> None:
        """Keeps the events and the cursor in one transaction of a database of its own."""
        while True:  # it ends where it was refused
            trio.run(self._consume, number)

    async def _consume(self, number: int) -> None:
        database = sqlite3.connect(self.folder / f"consumer-{number}.db", isolation_level=None)
        database.execute("PRAGMA synchronous = OFF")
        columns = "sequence INTEGER, step TEXT, hash BLOB, height INTEGER, parent BLOB, cursor TEXT"
        database.execute(f"CREATE TABLE IF NOT EXISTS told ({columns})")
        database.execute("CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY, cursor TEXT)")
        database.execute("CREATE TABLE IF NOT EXISTS refused (behind INTEGER)")
        row = database.execute("SELECT cursor FROM place").fetchone()
        async with open_feed(self.store) as feed:
            subscription = feed.subscribe(CHAIN, cursor=None if row is None else row[0])
            try:
                while events := await subscription.batch():
                    database.execute("BEGIN")
                    database.executemany("INSERT INTO told VALUES (?, ?, ?, ?, ?, ?)", map(self._row, events))
                    database.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (events[-1].cursor,))
                    database.execute("COMMIT")
                    if self.prunes and number == SLOW and await self._fell_behind(database, events[-1].sequence):
                        return
            except CursorTooOld:
                # It begins anew, with nothing; how far it had been left behind is judged in the end.
                (last,) = database.execute("SELECT sequence FROM told ORDER BY rowid DESC LIMIT 1").fetchone()
                database.execute("BEGIN")
                database.execute("INSERT INTO refused VALUES (?)", (0 if last is None else self.kept()[1] - last,))
                database.execute("DELETE FROM told")
                database.execute("DELETE FROM place")
                database.execute("COMMIT")
        database.close()

    async def _fell_behind(self, database: sqlite3.Connection, last: int | None) -> bool:
        """Once: stays away until the events that follow were deleted. It has to open the store anew: its feed remembers them."""
        if last is None or database.execute("SELECT 1 FROM refused").fetchone():
            return False
        while self.kept()[0] <= last + 1:
            if self.done() == len(self.inputs):
                return False
            await trio.sleep(0.01)
        return True

    def kept(self) -> tuple[int, int]:
        """The first and the last sequence of the log."""
        with Store.open(self.store, read_only=True) as store, store.snapshot() as connection:
            first, last = connection.execute(
                "SELECT coalesce(min(sequence), 0), coalesce(max(sequence), 0) FROM events"
            ).fetchone()
            return int(first), int(last)

    def _row(self, event: FeedEvent) -> tuple[int | None, str, bytes, int, bytes, str | None]:
        cursor = event.cursor if self.prunes else None
        return event.sequence, str(event.step), event.block.hash, event.block.height, event.parent, cursor

    def of_consumer(self, number: int, query: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(self.folder / f"consumer-{number}.db")
        try:
            return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            database.close()

    def told(self, number: int) -> list[tuple[Any, ...]]:
        return self.of_consumer(number, "SELECT sequence, step, hash FROM told ORDER BY rowid")

    def events_of(self, number: int) -> list[Told]:
        rows = self.of_consumer(number, "SELECT step, hash, height, parent FROM told ORDER BY rowid")
        return [Told(Step(step), BlockRef(hash_, height), parent) for step, hash_, height, parent in rows]

    def done(self) -> int:
        """How many inputs are mirrored."""
        with Store.open(self.store, read_only=True) as store:
            return int(store.position(PLUGIN, CHAIN) or b"0")


def judge_pruned(world: World, lives: Iterable[int], deadline: float) -> int:
    """That each consumer knows what it would know had nothing been deleted, and cursors do what is promised. How many worked."""
    unpruned = world.folder / "unpruned.store"
    with Store.open(unpruned, durable=False) as reference, Store.open(world.store) as store:
        world.mirror(reference).apply(PLUGIN, world.inputs)
        events = read_all(consumer(reference), reference)
        log = [(sequence, str(step), hash_) for sequence, step, hash_ in told(events)]
        left = [(sequence, str(step), hash_) for sequence, step, hash_ in log_of(store)]
        # Whatever the killed ones left behind is deleted by the next one; what is kept is whole.
        world.prune(store, Sweeper(RETENTION))
        assert left[-KEPT:] == log[-KEPT:]
        assert set(left) < set(log)
        assert len(left) < 4 * KEPT

        refusals = 0
        for number in lives:
            while not (found := world.told(number)) or found[-1] != log[-1]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            refused = [behind for (behind,) in world.of_consumer(number, "SELECT behind FROM refused")]
            assert all(behind > KEPT for behind in refused), refused
            refusals += len(refused)
            if all(sequence for sequence, _, _ in found):
                assert found == log
            else:  # some were told in place of deleted ones
                numbers = [sequence for sequence, _, _ in found if sequence]
                assert numbers == sorted(set(numbers))
                known = Rebuilt()
                known.apply(world.events_of(number))
                known.assert_equals(store)
        assert refusals

        rebuilt = Rebuilt()
        places: dict[int, str] = {}
        for number in lives:
            rows = world.of_consumer(number, "SELECT sequence, cursor FROM told WHERE sequence IS NOT NULL")
            places |= {int(sequence): str(cursor) for sequence, cursor in rows}
        worked = 0
        for number, event in enumerate(events, start=1):
            rebuilt.apply([event])
            assert event.sequence == number
            if number not in places:
                continue
            try:
                rest = read_all(consumer(store, places[number]), store)
            except CursorTooOld:
                assert number < len(log) - KEPT
                continue
            worked += 1
            if number >= len(log) - KEPT:
                assert [(sequence, str(step), hash_) for sequence, step, hash_ in told(rest)] == log[number:]
            resumed = deepcopy(rebuilt)
            resumed.apply(rest)
            resumed.assert_equals(store)
        assert worked >= KEPT
        return worked


def main() -> None:
    folder, source, what, kills, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    world = World(folder, source, seed, prunes=what == "pruning")
    lives = {number: fork(lambda number=number: world.consume(number)) for number in range(CONSUMERS)}  # type: ignore[misc]
    # All in all about as long as the kills take; a batch is 2.5 blocks.
    pause = kills * 0.01 / (len(world.inputs) / 2.5)
    host = fork(lambda: world.write(pause))
    killed = amidst = 0
    deadline = time.monotonic() + 60 + kills / 3
    try:
        for moment, number in moments(source, kills, seed):
            assert time.monotonic() < deadline
            if what == "consumers":
                time.sleep(moment * 0.02)
                kill(lives[number])
                lives[number] = fork(lambda number=number: world.consume(number))  # type: ignore[misc]
            else:
                # Some lives end as they begin; each other one has got something done.
                done = world.done()
                while killed % 2 and world.done() < min(done + 4, len(world.inputs)):
                    assert time.monotonic() < deadline
                    time.sleep(0.002)
                if what == "pruning":
                    while not world.pruning[0] and world.done() < len(world.inputs):
                        assert time.monotonic() < deadline
                        time.sleep(0.0002)
                    time.sleep(moment * 0.004)
                else:
                    time.sleep(moment * 0.03)
                kill(host)
                amidst += world.pruning[0]
                world.pruning[0] = 0
                host = fork(lambda: world.write(pause))
            killed += 1
        meanwhile = sum(len(world.told(number)) for number in lives)
        if what == "consumers":
            kill(host)
            host = fork(lambda: world.write(0))
        assert os.waitpid(host, 0)[1] == 0
        host = 0
        assert world.done() == len(world.inputs)
        with Store.open(world.store, read_only=True) as store:
            log = [(sequence, str(step), hash_) for sequence, step, hash_ in log_of(store)]
            reorgs = store.chain(CHAIN).statistics().reorgs
        assert reorgs >= 3 or source.endswith(".json")
        if what == "pruning":
            worked = judge_pruned(world, lives, deadline)
            print(f"killed {killed}; {amidst} of them while events were deleted, {worked} cursors tried that work; ", end="")
            print("each consumer holds exactly the log")
            return
        for number in lives:
            while len(world.told(number)) < len(log):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert world.told(number) == log
    finally:
        for child in [*lives.values(), *([host] if host else [])]:
            kill(child)
    part = 100 * meanwhile // (CONSUMERS * len(log))
    print(f"killed {killed}; {len(log)} events, {reorgs} reorgs, {part} % told meanwhile; each consumer holds exactly the log")


if __name__ == "__main__":
    main()
