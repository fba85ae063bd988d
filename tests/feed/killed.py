"""Consumers, or the host, killed and started again at any moment, while a chain with reorgs is mirrored.

Arguments: a folder, ``sample`` or ``random``, ``consumers`` or ``host``, how often something is killed, and a seed. The processes
are forks of this one, which has all it needs loaded and no thread: so that a thousand lives cost seconds. The last line printed
says how many were killed, and that each consumer holds exactly the log.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import trio

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import RawBlock
from supervm_rt.store import BlockInput, Input, Mirror, Store
from supervm_rt.store.feed import open_feed
from tests.cli.support import SAMPLE_BLOCKS
from tests.feed.support import busy_inputs, log_of
from tests.sample.block_reader import read_folder
from tests.store.support import CHAIN, HEAVIEST, PLUGIN

CONSUMERS = 4
RULES = replace(HEAVIEST, final_depth=20, orphan_limit=1000)


def inputs_of(source: str, seed: int) -> tuple[BitcoinTranslator | None, list[Input]]:
    """The sample chain as bitcoind wrote it, or a random tree."""
    if source == "random":
        return None, busy_inputs(seed, 3000)
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


class World:
    def __init__(self, folder: Path, source: str, seed: int) -> None:
        self.store = folder / "chain.store"
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
            while done < len(self.inputs):
                count = random.randint(1, 4)
                mirror.apply(PLUGIN, self.inputs[done : done + count])
                done += count
                time.sleep(pause)

    def consume(self, number: int) -> None:
        """Keeps the events and the cursor in one transaction of a database of its own."""
        trio.run(self._consume, number)

    async def _consume(self, number: int) -> None:
        database = sqlite3.connect(self.folder / f"consumer-{number}.db", isolation_level=None)
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE IF NOT EXISTS told (sequence INTEGER, step TEXT, hash BLOB)")
        database.execute("CREATE TABLE IF NOT EXISTS place (id INTEGER PRIMARY KEY, cursor TEXT)")
        row = database.execute("SELECT cursor FROM place").fetchone()
        async with open_feed(self.store) as feed:
            subscription = feed.subscribe(CHAIN, cursor=None if row is None else row[0])
            while events := await subscription.batch():
                database.execute("BEGIN")
                for event in events:
                    database.execute("INSERT INTO told VALUES (?, ?, ?)", (event.sequence, str(event.step), event.block.hash))
                database.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (events[-1].cursor,))
                database.execute("COMMIT")

    def told(self, number: int) -> list[tuple[int, str, bytes]]:
        database = sqlite3.connect(self.folder / f"consumer-{number}.db")
        try:
            return database.execute("SELECT sequence, step, hash FROM told ORDER BY rowid").fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            database.close()

    def done(self) -> int:
        """How many inputs are mirrored."""
        with Store.open(self.store, read_only=True) as store:
            return int(store.position(PLUGIN, CHAIN) or b"0")


def main() -> None:
    folder, source, what, kills, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    world = World(folder, source, seed)
    random = Random(seed)
    lives = {number: fork(lambda number=number: world.consume(number)) for number in range(CONSUMERS)}  # type: ignore[misc]
    # All in all about as long as the kills take; a batch is 2.5 blocks.
    pause = kills * 0.01 / (len(world.inputs) / 2.5)
    host = fork(lambda: world.write(pause))
    killed = 0
    deadline = time.monotonic() + 60 + kills / 3
    try:
        while killed < kills:
            assert time.monotonic() < deadline
            if what == "consumers":
                time.sleep(random.random() * 0.02)
                number = random.randrange(CONSUMERS)
                kill(lives[number])
                lives[number] = fork(lambda number=number: world.consume(number))  # type: ignore[misc]
            else:
                # Some lives end as they begin; each other one has got something done.
                done = world.done()
                while killed % 2 and world.done() < min(done + 4, len(world.inputs)):
                    assert time.monotonic() < deadline
                    time.sleep(0.002)
                time.sleep(random.random() * 0.03)
                kill(host)
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
        assert reorgs >= 3
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
