"""Deleting old events takes turns with the mirrors."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import trio

from supervm_rt.runtime.retention import prune
from supervm_rt.store import Input, Store
from supervm_rt.store.feed.retention import SWEPT_AT_ONCE, Kept, Retention, Sweeper
from tests.feed.support import log_of
from tests.store.support import HEAVIEST, PLUGIN, chain_of, dev_mirror

RULES = replace(HEAVIEST, final_depth=6)
BLOCKS = 6000
KEPT = 100


def test_commits_go_on_while_many_events_are_deleted(tmp_path: Path) -> None:
    """Whoever waits to commit comes after one step of it."""
    inputs = chain_of(2 * BLOCKS)
    path = tmp_path / "chain.store"
    with Store.open(path, durable=False) as store, Store.open(path, read_only=True) as reader:
        mirror = dev_mirror(store, RULES)
        mirror.apply(PLUGIN, inputs[:BLOCKS])
        old = len(log_of(store)) - 2 * KEPT
        turn = trio.Lock()
        lowest: list[int] = []
        """The first event that is left, with each commit."""

        def first() -> int:
            with store.snapshot() as connection:
                return int(connection.execute("SELECT min(sequence) FROM events").fetchone()[0])

        def commit(one: Input) -> None:
            lowest.append(first())
            assert mirror.apply(PLUGIN, [one])[0].events

        async def test() -> None:
            retention = Retention(Kept(0, KEPT))
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(prune, turn, store, reader, retention, Sweeper(retention))
                    for one in inputs[BLOCKS:]:
                        async with turn:
                            await trio.to_thread.run_sync(commit, one)
                        if lowest[-1] > old:
                            break
                    nursery.cancel_scope.cancel()

        trio.run(test)
        steps = [after - before for before, after in itertools.pairwise(lowest)]
        assert lowest[-1] > old, "all were committed before the old events were gone"
        assert sum(1 < one < old for one in lowest) > BLOCKS / SWEPT_AT_ONCE
        assert max(steps) <= SWEPT_AT_ONCE
