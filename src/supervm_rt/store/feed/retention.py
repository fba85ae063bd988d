"""Deletes old events, a few at a time. Blocks stay, so a consumer that begins anew still learns the whole chain.

Events of a chain go from the oldest on, up to its *horizon*: an event behind which the chain stood at a block that is final for
ever. So only events of final and of undone blocks are ever deleted. First the horizon moves, in a transaction that writes one
row; from then on cursors before it are refused. The rows before it are then deleted in transactions of a bounded size.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final, NamedTuple

from supervm_rt.errors import ConfigurationError
from supervm_rt.store.database import Store
from supervm_rt.store.faults import decoding
from supervm_rt.store.feed.reader import log_head
from supervm_rt.store.schema import StateCode, StepCode

SWEPT_AT_ONCE: Final = 500
"""Rows that one transaction deletes: a few milliseconds."""
_STRIDE: Final = 20_000
"""About how many events a horizon moves over at once."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events of final and of undone blocks are kept.

    A cursor works for at least ``age`` after the event that follows it was committed, and for as long as it is among the last
    ``events`` of the store's log.
    """

    age: float
    """Seconds since they were committed."""
    events: int = 10_000
    """So many of the log's last events are kept, however old they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.age < float("inf"):
            raise ConfigurationError(f"events cannot be kept for {self.age!r} s", remedy="give a length of time, such as 30d")
        if self.events < 0:
            raise ConfigurationError(f"{self.events} events cannot be kept", remedy="give a number from 0 on")


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
        last = max(0, min(_last_older_than(connection, now - retention.age), log_head(connection) - retention.events))
        for chain, final_height in connection.execute(
            "SELECT c.id, f.height FROM chains c JOIN blocks f ON f.id = c.final ORDER BY c.id"
        ).fetchall():
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


def sweep(store: Store, limit: int = SWEPT_AT_ONCE) -> int:
    """Deletes at most ``limit`` rows that lie before the horizons. How many: fewer than ``limit`` says that none is left."""
    with store.transaction() as connection:
        deleted = 0
        for chain, sequence in connection.execute("SELECT chain, sequence FROM horizons").fetchall():
            deleted += connection.execute(
                "DELETE FROM events WHERE sequence IN"
                " (SELECT sequence FROM events WHERE chain = ? AND sequence <= ? ORDER BY sequence LIMIT ?)",
                (chain, sequence, limit - deleted),
            ).rowcount
        if deleted < limit:
            # A commit is dated for as long as one of its events is there, or, where none is, until the next one's are.
            deleted += connection.execute(
                "DELETE FROM commits WHERE sequence IN (SELECT sequence FROM commits WHERE sequence <"
                " (SELECT min(sequence) FROM events) ORDER BY sequence LIMIT ?)",
                (limit - deleted,),
            ).rowcount
    return deleted


def _last_older_than(connection: sqlite3.Connection, moment: float) -> int:
    """Sequence of the last event that was committed before, going by the oldest first; 0: none.

    Commits are looked at from the oldest on, and few: what is older than the horizons is deleted, and each pass moves on.
    """
    (oldest,) = connection.execute("SELECT coalesce(min(sequence), 0) FROM horizons").fetchone()
    row = connection.execute(
        "SELECT sequence FROM commits WHERE sequence > ? AND time >= ? ORDER BY sequence LIMIT 1",
        (oldest, max(0, round(moment * 1e9))),
    ).fetchone()
    if row is None:
        return log_head(connection)
    before = connection.execute("SELECT max(sequence) FROM commits WHERE sequence < ?", (row[0],)).fetchone()[0]
    return int(before or 0)


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
        elif step == StepCode.NEW and state == StateCode.CANONICAL and height <= final_height:
            tip = block
        else:
            tip = None
        if tip is not None:
            found = NewHorizon(chain, sequence, tip, final)
        if passed >= _STRIDE and found is not None:
            break
    return found
