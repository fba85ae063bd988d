"""The rows that one transaction of a mirror will write, gathered while its inputs are decided and written together."""

from __future__ import annotations

import itertools
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from supervm_rt.chain.types import Candidate
from supervm_rt.ir.translator import TranslatedBlock
from supervm_rt.store.inputs import Buffer
from supervm_rt.store.schema import SECTION_ROWS, StateCode

TRANSACTION_ID_BYTES = 32

_ROWS_AT_ONCE = 64
"""Rows of the transaction index in one statement: a call for each row costs a third of the insertion."""


@dataclass(slots=True)
class NewBlock:
    """A block that arrived in this batch."""

    id: int
    candidate: Candidate
    block: TranslatedBlock
    raw: Buffer
    size: int
    """Of ``raw``, in bytes."""
    state: StateCode
    height: int | None


@dataclass(slots=True)
class Totals:
    """The counters of a chain."""

    connected: int = 0
    canonical: int = 0
    transactions: int = 0
    indexed: int = 0
    bytes: int = 0
    events: int = 0
    reorgs: int = 0
    deepest_reorg: int = 0


@dataclass(slots=True)
class Batch:
    """Everything here concerns one chain."""

    connection: sqlite3.Connection
    """In its transaction."""
    chain: int
    next_id: int
    new: dict[bytes, NewBlock] = field(default_factory=dict)
    """By hash, in order of arrival."""
    states: dict[int, StateCode] = field(default_factory=dict)
    """Changed states of blocks that earlier transactions stored, by id."""
    connected: dict[int, int] = field(default_factory=dict)
    """Orphans of earlier transactions that have found their place: height by id."""
    removed: list[int] = field(default_factory=list)
    """Orphans of earlier transactions that go, by id."""
    events: list[tuple[int, int, int]] = field(default_factory=list)
    """(chain, step as a StepCode, block id)."""

    def add(self, block: NewBlock) -> None:
        """Takes a block whose id is ``next_id``."""
        self.new[block.candidate.hash] = block
        self.next_id += 1

    def set_state(self, hash_: bytes, block: int, state: StateCode) -> None:
        """Changes a block, whether this batch has brought it or not."""
        new = self.new.get(hash_)
        if new is not None:
            new.state = state
        else:
            self.states[block] = state

    def connect(self, hash_: bytes, block: int, height: int) -> None:
        """A waiting block has found its place; its state is set apart."""
        new = self.new.get(hash_)
        if new is not None:
            new.height = height
        else:
            self.connected[block] = height

    def remove(self, hash_: bytes, block: int) -> None:
        """A waiting block goes."""
        if self.new.pop(hash_, None) is None:
            self.removed.append(block)

    def write(self, totals: Totals) -> None:
        """Writes all rows but the chain's own. ``totals.indexed`` grows by the transactions that enter the index."""
        connection = self.connection
        for table, column in (("waiting", "block"), ("bodies", "block"), ("blocks", "id")):
            connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", ((block,) for block in self.removed))
        connection.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._block_rows())
        connection.executemany(
            "INSERT INTO bodies VALUES (?, ?, ?, ?, ?)",
            ((new.id, zlib.crc32(new.block.ir), zlib.crc32(new.raw), new.block.ir, new.raw) for new in self.new.values()),
        )
        connection.executemany(
            "INSERT INTO waiting VALUES (?, ?, ?)",
            ((new.id, self.chain, new.block.transaction_ids) for new in self.new.values() if new.state is StateCode.WAITING),
        )
        connection.executemany("UPDATE blocks SET state = ?2 WHERE id = ?1", self.states.items())
        connection.executemany("UPDATE blocks SET height = ?2 WHERE id = ?1", self.connected.items())
        if self.events:
            connection.executemany("INSERT INTO events (chain, step, block) VALUES (?, ?, ?)", self.events)
            connection.execute("INSERT INTO commits VALUES (last_insert_rowid(), ?)", (time.time_ns(),))
        self._index(totals)
        connection.executemany("DELETE FROM waiting WHERE block = ?", ((block,) for block in self.connected))

    def _block_rows(self) -> Iterator[tuple[int | bytes | None, ...]]:
        for new in self.new.values():
            candidate = new.candidate
            yield (
                new.id,
                self.chain,
                candidate.hash,
                candidate.parent,
                new.height,
                candidate.weight.to_bytes((candidate.weight.bit_length() + 7) // 8, "big"),
                candidate.content,
                candidate.final_height,
                int(new.state),
                new.block.time,
                len(new.block.transaction_ids) // TRANSACTION_ID_BYTES,
                new.size,
            )

    def _index(self, totals: Totals) -> None:
        rows: list[tuple[int, int, int]] = []
        for block, ids in self._newly_connected():
            prefixes = transaction_prefixes(ids)
            rows += zip(prefixes, itertools.repeat(block), range(len(prefixes)), strict=False)
        # In the order of the index, each page is visited once.
        rows.sort()
        section = totals.indexed // SECTION_ROWS
        totals.indexed += len(rows)
        row = f"({self.chain}, {section}, ?, ?, ?)"
        whole = len(rows) - len(rows) % _ROWS_AT_ONCE
        values = itertools.chain.from_iterable(rows[:whole])
        statement = f"INSERT INTO transactions VALUES {', '.join([row] * _ROWS_AT_ONCE)}"
        self.connection.executemany(statement, zip(*[values] * (3 * _ROWS_AT_ONCE), strict=True))
        self.connection.executemany(f"INSERT INTO transactions VALUES {row}", rows[whole:])

    def _newly_connected(self) -> Iterator[tuple[int, bytes]]:
        for block in sorted(self.connected):
            yield block, self.connection.execute("SELECT transaction_ids FROM waiting WHERE block = ?", (block,)).fetchone()[0]
        for new in self.new.values():
            if new.state is not StateCode.WAITING:
                yield new.id, new.block.transaction_ids


def transaction_prefixes(ids: bytes) -> Sequence[int]:
    """The index's key for each of the concatenated transaction ids."""
    count = len(ids) // TRANSACTION_ID_BYTES
    return struct.unpack(">" + "q24x" * count, ids[: count * TRANSACTION_ID_BYTES])
