"""Deletes old events, a few at a time. Blocks stay, so a consumer that begins anew still learns the whole chain.

Events of a chain go from the oldest on, up to its *horizon*: an event behind which the chain stood at a block that is final for
ever. So only events of final and of undone blocks are ever deleted. First the horizon moves, in a transaction that writes one
row; from then on cursors before it are refused, but those at an undone block (``reader``). The rows before it are then deleted in
transactions of a bounded size: those of final blocks all, those of undone blocks where these are not to be kept for longer.

What a cursor at an undone block needs is the last event of an undone block before it; the way back is known from the blocks. So
these events go from the oldest on too, and up to a place where the chain stood at no undone block.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from typing import Final, NamedTuple

from supervm_rt.errors import ConfigurationError
from supervm_rt.store.database import Store
from supervm_rt.store.faults import decoding
from supervm_rt.store.feed.log import log_head
from supervm_rt.store.schema import HIGHEST_INTEGER, StateCode, StepCode

SWEPT_AT_ONCE: Final = 500
"""Rows that one transaction deletes: a few milliseconds."""
_STRIDE: Final = 20_000
"""About how many events a horizon moves over at once."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How long events of one kind are kept. Raises ConfigurationError for what is no length."""

    age: float
    """Seconds since they were committed; ``math.inf``: for ever."""
    events: int = 10_000
    """Those among so many of the log's last events are kept, however old they are."""

    def __post_init__(self) -> None:
        if not self.age >= 0:  # nor is what is no number
            raise ConfigurationError(f"events cannot be kept for {self.age!r} s", remedy="give a length of time, such as 30d")
        if self.events < 0:
            raise ConfigurationError(f"{self.events} events cannot be kept", remedy="give a number from 0 on")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events of final and of undone blocks are kept.

    A cursor works for as long as the event that follows it in its chain is kept: one at a block that was undone since by
    ``undone``, any other by ``final``. Raises ConfigurationError where ``undone`` is the shorter one: events of undone blocks lie
    between those of final ones, and a log without them would not be whole.
    """

    final: Kept
    undone: Kept | None = None
    """None: as long as the others."""

    def __post_init__(self) -> None:
        if self.undone is not None and (self.undone.age < self.final.age or self.undone.events < self.final.events):
            raise ConfigurationError(
                "events of undone blocks cannot be kept for a shorter time, or in a smaller number, than those of final blocks, "
                "between which they lie",
                remedy="give undone at least the age and the events of final",
            )


class NewHorizon(NamedTuple):
    """Where a chain's horizon can move to; block ids."""

    chain: int
    sequence: int
    tip: int
    final: int | None


def find_horizons(store: Store, retention: Retention, now: float) -> list[NewHorizon]:
    """For each chain, where its horizon can move to; reads only, so that it need not wait for the writer.

    ``now``: seconds since the epoch, by the clock that dated the commits. Memory is constant, time about that of ``_STRIDE``
    events; where a chain was undone and redone for longer without any block becoming final, that of the events until one did.
    """
    found = []
    with store.snapshot() as connection, decoding(store.path):
        (oldest,) = connection.execute("SELECT coalesce(min(sequence), 0) FROM horizons").fetchone()
        last = _last_not_kept(connection, retention.final, now, oldest)
        for chain, final_height in _final_heights(connection):
            horizon = _find(connection, chain, final_height, last)
            if horizon is not None:
                found.append(horizon)
    return found


def move_horizon(store: Store, horizon: NewHorizon) -> None:
    """Moves a chain's horizon; never back. One row is written."""
    with store.transaction() as connection:
        connection.execute(
            "INSERT INTO horizons VALUES (?, ?, ?, ?) ON CONFLICT (chain) DO UPDATE SET sequence = excluded.sequence,"
            " tip = excluded.tip, final = excluded.final WHERE excluded.sequence > sequence",
            horizon,
        )


class Sweeper:
    """Finds the events that lie before the horizons and are not kept, from the oldest on; remembers which it has looked at."""

    def __init__(self, retention: Retention) -> None:
        """A new one looks at all events before the horizons once more."""
        self._undone = retention.undone
        self._passed: dict[int, int] = {}
        """Up to here only events of undone blocks are left of a chain."""
        self._old = 0
        """Up to here nothing has to be kept for its undone block's sake: what was old enough once is so for ever."""

    def find(self, store: Store, now: float, limit: int = SWEPT_AT_ONCE) -> list[int]:
        """Sequences of at most ``limit`` of them; none: nothing is to be deleted. Reads only. ``now``: as of ``find_horizons``.

        Takes time for the events that it looks at for the first time, and for those of undone blocks that are not to be kept.
        """
        found: list[int] = []
        with store.snapshot() as connection, decoding(store.path):
            if self._undone is not None:
                self._old = max(self._old, _last_not_kept(connection, self._undone, now, self._old))
            for chain, horizon in connection.execute("SELECT chain, sequence FROM horizons ORDER BY chain").fetchall():
                found += self._up_to(connection, chain, horizon, limit - len(found))
                if len(found) < limit and self._undone is not None:
                    # Where only these are left, so that none is looked at for nothing.
                    found += _undone_before(connection, chain, min(self._old, horizon), limit - len(found))
                if len(found) == limit:
                    break
        return found

    def _up_to(self, connection: sqlite3.Connection, chain: int, horizon: int, limit: int) -> list[int]:
        kinds = "" if self._undone is None else f"AND b.state = {int(StateCode.CANONICAL)} "
        rows = connection.execute(
            "SELECT e.sequence FROM events e JOIN blocks b ON b.id = e.block WHERE e.chain = ? AND e.sequence > ?"
            f" AND e.sequence <= ? {kinds}ORDER BY e.sequence LIMIT ?",
            (chain, self._passed.get(chain, 0), horizon, limit),
        ).fetchall()
        if len(rows) < limit:
            self._passed[chain] = horizon
        elif rows:
            self._passed[chain] = rows[-1][0]
        return [sequence for (sequence,) in rows]


def sweep(store: Store, sequences: list[int]) -> None:
    """Deletes these events, and at most as many rows that date commits of which no event is left, and SWEPT_AT_ONCE more."""
    with store.transaction() as connection:
        connection.executemany("DELETE FROM events WHERE sequence = ?", [(sequence,) for sequence in sequences])
        # A commit is dated for as long as one of its events is there, or, where none is, until the next one's are.
        connection.execute(
            "DELETE FROM commits WHERE sequence IN (SELECT sequence FROM commits WHERE sequence <"
            " (SELECT min(sequence) FROM events) ORDER BY sequence LIMIT ?)",
            (len(sequences) + SWEPT_AT_ONCE,),
        )


def _final_heights(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT c.id, f.height FROM chains c JOIN blocks f ON f.id = c.final ORDER BY c.id").fetchall()


def _last_not_kept(connection: sqlite3.Connection, kept: Kept, now: float, known: int) -> int:
    """Sequence of the last event that is neither young enough nor among the last ones; 0: none.

    Commits are looked at from the first behind ``known`` on, and few: what is older is deleted, and each pass moves on.
    """
    among_last = log_head(connection) - kept.events
    if among_last <= 0 or math.isinf(kept.age):
        return 0
    moment = min(max(0, round((now - kept.age) * 1e9)), HIGHEST_INTEGER)
    row = connection.execute(
        "SELECT sequence FROM commits WHERE sequence > ? AND time >= ? ORDER BY sequence LIMIT 1", (known, moment)
    ).fetchone()
    if row is None:
        return among_last
    before = connection.execute("SELECT max(sequence) FROM commits WHERE sequence < ?", (row[0],)).fetchone()[0]
    return min(int(before or 0), among_last)


def _find(connection: sqlite3.Connection, chain: int, final_height: int, last: int) -> NewHorizon | None:
    row = connection.execute("SELECT sequence, tip, final FROM horizons WHERE chain = ?", (chain,)).fetchone()
    begun, _, final = row or (0, None, None)
    tip: int | None = None
    found: NewHorizon | None = None
    rows = connection.execute(
        "SELECT e.sequence, e.step, b.id, b.height, b.state FROM events e JOIN blocks b ON b.id = e.block"
        " WHERE e.chain = ? AND e.sequence > ? AND e.sequence <= ? ORDER BY e.sequence",
        (chain, begun, last),
    )
    for passed, (sequence, step, block, height, state) in enumerate(rows, start=1):
        if step == StepCode.FINAL:
            final = block
        elif state != StateCode.CUT and height > final_height:
            break  # it is not settled yet whether this block will be final or undone
        elif step == StepCode.NEW and state == StateCode.CANONICAL:
            tip = block
        else:
            tip = None
        if tip is not None:
            found = NewHorizon(chain, sequence, tip, final)
        if passed >= _STRIDE and found is not None:
            break
    return found


def _undone_before(connection: sqlite3.Connection, chain: int, last: int, limit: int) -> list[int]:
    """Events of undone blocks up to a sequence, and up to a place where the chain stood at none."""
    found: list[int] = []
    whole = 0
    rows = connection.execute(
        "SELECT e.sequence, e.step, p.state FROM events e JOIN blocks b ON b.id = e.block"
        " LEFT JOIN blocks p ON p.chain = b.chain AND p.hash = b.parent"
        " WHERE e.chain = ? AND e.sequence <= ? AND b.state <> ? ORDER BY e.sequence",
        (chain, last, int(StateCode.CANONICAL)),
    )
    for sequence, step, below in rows:
        found.append(sequence)
        if step == StepCode.UNDO and below == StateCode.CANONICAL:
            whole = len(found)
            if whole >= limit:
                break
    return found[: min(whole, limit)]
