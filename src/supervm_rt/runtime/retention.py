"""Deletes old events while the node runs: now and then, and never more between two batches of a mirror than one small step."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from supervm_rt.errors import StoreError
from supervm_rt.store import Store
from supervm_rt.store.feed.retention import Retention, Sweeper, find_horizons, move_horizon, sweep

if TYPE_CHECKING:
    from supervm_rt.runtime.runtime import Runtime

EVERY: Final = 60.0
"""Seconds between two rounds."""


async def keep_retention(runtime: Runtime, store: Store, retention: Retention) -> None:
    """Runs until cancelled. A failure of the store ends the runtime."""
    reader: Store | None = None
    try:
        reader = await trio.to_thread.run_sync(partial(Store.open, store.path, read_only=True))
        sweeper = Sweeper(retention)
        while True:
            await prune(runtime.store_turn, store, reader, retention, sweeper)
            await trio.sleep(EVERY)
    except StoreError as error:
        runtime.store_failed(error)
    finally:
        if reader is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(reader.close)


async def prune(turn: trio.Lock, store: Store, reader: Store, retention: Retention, sweeper: Sweeper) -> None:
    """Deletes all that may go by now. ``turn``: of those that write; ``reader``: another handle of the same store.

    Raises StoreError.
    """
    moved = True
    while moved:
        horizons = await trio.to_thread.run_sync(find_horizons, reader, retention, time.time())
        for horizon in horizons:
            async with turn:  # the lock is fair: whoever waits for it comes next
                await trio.to_thread.run_sync(move_horizon, store, horizon)
        while sequences := await trio.to_thread.run_sync(sweeper.find, reader, time.time()):
            async with turn:
                await trio.to_thread.run_sync(sweep, store, sequences)
        moved = bool(horizons)
