"""What the store says of a chain's log and of its blocks: the queries of a consumer that reads on."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from supervm_rt.model.chain import BlockRef
from supervm_rt.store.schema import StateCode, StepCode

NEW, UNDO, FINAL = map(int, (StepCode.NEW, StepCode.UNDO, StepCode.FINAL))

LOG: Final = (
    "SELECT e.sequence, e.chain, e.step, e.block, b.hash, b.height, b.parent, b.time,"
    " (SELECT m.time FROM commits m WHERE m.sequence >= e.sequence ORDER BY m.sequence LIMIT 1)"
    " FROM events e JOIN blocks b ON b.id = e.block WHERE "
)


class Horizon(NamedTuple):
    """What the deleted events of a chain led to."""

    sequence: int
    """Of the last of them."""
    tip: BlockRef
    final: BlockRef | None


def log_head(connection: sqlite3.Connection) -> int:
    """Sequence of the last event that the log ever had; 0 before the first."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return 0 if row is None else int(row[0])


def horizon_of(connection: sqlite3.Connection, chain: int) -> Horizon | None:
    """None: no event of the chain was deleted."""
    row = connection.execute(
        "SELECT h.sequence, t.hash, t.height, f.hash, f.height FROM horizons h JOIN blocks t ON t.id = h.tip"
        " LEFT JOIN blocks f ON f.id = h.final WHERE h.chain = ?",
        (chain,),
    ).fetchone()
    if row is None:
        return None
    sequence, tip, tip_height, final, final_height = row
    return Horizon(sequence, BlockRef(tip, tip_height), None if final is None else BlockRef(final, final_height))


def way_down(
    connection: sqlite3.Connection, chain: int, tip: BlockRef | None, height: int, limit: int
) -> list[tuple[tuple[int, bytes, int, bytes, int], int]]:
    """Blocks from a tip down to the first one of the canonical chain that is no higher: id, hash, height, parent, time; and the
    parent's height."""
    found: list[tuple[tuple[int, bytes, int, bytes, int], int]] = []
    hash_ = None if tip is None else tip.hash
    while hash_ is not None and len(found) < limit:
        *block, state, below = connection.execute(
            "SELECT b.id, b.hash, b.height, b.parent, b.time, b.state, p.height FROM blocks b"
            " LEFT JOIN blocks p ON p.chain = b.chain AND p.hash = b.parent WHERE b.chain = ? AND b.hash = ?",
            (chain, hash_),
        ).fetchone()
        if below is None or (state == StateCode.CANONICAL and block[2] <= height):
            break
        found.append((tuple(block), below))
        hash_ = block[3]
    return found


def canonical_blocks(
    connection: sqlite3.Connection, chain: int, low: int, high: int, limit: int
) -> list[tuple[int, bytes, int, bytes, int]]:
    """Canonical blocks from one height up to another: id, hash, height, parent, time."""
    return connection.execute(
        "SELECT id, hash, height, parent, time FROM blocks WHERE chain = ? AND height BETWEEN ? AND ? AND state = ?"
        " ORDER BY height LIMIT ?",
        (chain, low, high, int(StateCode.CANONICAL), limit),
    ).fetchall()


def state_of(connection: sqlite3.Connection, chain: int, block: BlockRef) -> int | None:
    """The state of a block at this height; None: there is no such block."""
    row: tuple[int, int] | None = connection.execute(
        "SELECT state, height FROM blocks WHERE chain = ? AND hash = ?", (chain, block.hash)
    ).fetchone()
    return None if row is None or row[1] != block.height else row[0]


def undone_tip(connection: sqlite3.Connection, chain: int, sequence: int) -> BlockRef | None:
    """At which block the chain stood behind an event before the horizon, if that block was undone, and an event still tells so.

    None also where it stood at a block that is final. Events of undone blocks are deleted from the oldest on: where there is one,
    none that came after it is missing.
    """
    row = connection.execute(
        "SELECT e.sequence, e.step, b.state, b.hash, b.height, p.state, p.hash, p.height"
        " FROM events e JOIN blocks b ON b.id = e.block LEFT JOIN blocks p ON p.chain = b.chain AND p.hash = b.parent"
        " WHERE e.chain = ? AND e.sequence <= ? AND e.step <> ? ORDER BY e.sequence DESC LIMIT 1",
        (chain, sequence, FINAL),
    ).fetchone()
    if row is None:
        return None
    last, step, state, hash_, height, below, parent, parent_height = row
    if state == StateCode.CANONICAL or below is None:
        return None
    if step == NEW:
        return BlockRef(hash_, height)
    # Behind the last UNDO of a branch, events of final blocks may be missing.
    return BlockRef(parent, parent_height) if below != StateCode.CANONICAL or last == sequence else None


def final_at(connection: sqlite3.Connection, chain: int, sequence: int) -> BlockRef | None:
    """The last final block behind an event, as far as the log tells."""
    row = connection.execute(
        "SELECT b.hash, b.height FROM events e JOIN blocks b ON b.id = e.block"
        " WHERE e.chain = ? AND e.sequence <= ? AND e.step = ? ORDER BY e.sequence DESC LIMIT 1",
        (chain, sequence, FINAL),
    ).fetchone()
    return None if row is None else BlockRef(*row)


def crossing(connection: sqlite3.Connection, chain: int, height: int, low: int, head: int) -> int:
    """A place in the log at which the chain was below a height and from which it went up to it; the end, where it never did.

    At any such place a consumer of the blocks from that height on has none yet: what follows tells it all. At ``low`` the chain
    is below.
    """
    begun, high = low, head
    if _tip_height(connection, chain, begun, high) < height:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if _tip_height(connection, chain, begun, middle) < height:
            low = middle
        else:
            high = middle
    return low


def _tip_height(connection: sqlite3.Connection, chain: int, begun: int, sequence: int) -> int:
    """Behind an event; -1 where the chain has none behind ``begun`` up to there."""
    row = connection.execute(
        "SELECT e.step, b.height, p.height FROM events e JOIN blocks b ON b.id = e.block"
        " LEFT JOIN blocks p ON p.chain = b.chain AND p.hash = b.parent"
        " WHERE e.chain = ? AND e.sequence > ? AND e.sequence <= ? AND e.step <> ? ORDER BY e.sequence DESC LIMIT 1",
        (chain, begun, sequence, FINAL),
    ).fetchone()
    if row is None:
        return -1
    step, height, below = row
    return height if step == NEW else -1 if below is None else below
