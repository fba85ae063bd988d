"""The tables of a store, and how a store of an older version becomes one of this version.

``user_version`` in the file's header is the schema's version. A change of the tables raises SCHEMA_VERSION by one and adds to
MIGRATIONS, under the version it starts from, the function that changes a store by exactly that one step. Opening for writing
runs the missing steps in order, each in a transaction of its own together with the new ``user_version``; so a kill between
two steps leaves a store of a known version. A released step is never edited.
"""

from __future__ import annotations

import enum
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Final

APPLICATION_ID: Final = 0x53564D52
"""``SVMR`` in the file's header: tells a store from any other SQLite file."""

SCHEMA_VERSION: Final = 2

CURSOR_KEY_BYTES: Final = 32

PAGE_SIZE: Final = 16384
"""Bodies of a megabyte are written more than twice as fast as with 4096; still larger pages gain little and cost each index."""

SECTION_ROWS: Final = 1 << 19
"""About how many rows a section of the transaction index holds. Transaction ids are random, so rows go to random pages: the
pages of one section fit the cache however long the chain is. A look-up asks each section."""

HIGHEST_INTEGER: Final = (1 << 63) - 1
"""What a column can hold."""

LARGEST_BODY: Final = 900_000_000
"""Bytes of raw block and IR together; one row of SQLite ends at 1,000,000,000."""


class StateCode(enum.IntEnum):
    """What ``blocks.state`` holds. That a canonical block is final is not written to it: it follows from ``chains.final``."""

    WAITING = 0
    SIDE = 1
    CANONICAL = 2
    CUT = 3


class StepCode(enum.IntEnum):
    """What ``events.step`` holds."""

    NEW = 1
    UNDO = 2
    FINAL = 3


# A block's id grows with its arrival: it is the order of arrival. ids of deleted (evicted) blocks may come again.
# weight is a big-endian number of as many bytes as it needs: it can pass what an integer column holds.
# final_claim: the highest final_height that a block which is final by now has stated.
# first: the first block that a plugin sent; its height was settled without regard to what the plugin claims.
TABLES: Final = (
    """
    CREATE TABLE chains (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        family TEXT NOT NULL,
        network TEXT NOT NULL,
        mode TEXT NOT NULL,
        holes INTEGER NOT NULL,
        final_depth INTEGER,
        orphan_limit INTEGER NOT NULL,
        first INTEGER,
        tip INTEGER,
        final INTEGER,
        final_claim INTEGER,
        connected INTEGER NOT NULL DEFAULT 0,
        canonical INTEGER NOT NULL DEFAULT 0,
        transactions INTEGER NOT NULL DEFAULT 0,
        indexed INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        events INTEGER NOT NULL DEFAULT 0,
        reorgs INTEGER NOT NULL DEFAULT 0,
        deepest_reorg INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        chain INTEGER NOT NULL,
        hash BLOB NOT NULL,
        parent BLOB NOT NULL,
        height INTEGER,
        weight BLOB NOT NULL,
        content BLOB NOT NULL,
        final_height INTEGER,
        state INTEGER NOT NULL,
        time INTEGER NOT NULL,
        transactions INTEGER NOT NULL,
        size INTEGER NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX blocks_by_hash ON blocks (chain, hash)",
    "CREATE INDEX blocks_by_height ON blocks (chain, height)",
    # Apart from blocks, so that walking over blocks does not read bodies. The IR comes first: it is what is asked for most.
    """
    CREATE TABLE bodies (
        block INTEGER PRIMARY KEY,
        ir_checksum INTEGER NOT NULL,
        raw_checksum INTEGER NOT NULL,
        ir BLOB NOT NULL,
        raw BLOB NOT NULL
    )
    """,
    # The transaction ids of orphans, which are indexed once the orphan connects: an evicted one leaves nothing in the index.
    """
    CREATE TABLE waiting (
        block INTEGER PRIMARY KEY,
        chain INTEGER NOT NULL,
        transaction_ids BLOB NOT NULL
    )
    """,
    # prefix: the first 8 bytes of the id as a signed big-endian number; the whole id is compared with the block's IR.
    """
    CREATE TABLE transactions (
        chain INTEGER NOT NULL,
        section INTEGER NOT NULL,
        prefix INTEGER NOT NULL,
        block INTEGER NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (chain, section, prefix, block, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        chain INTEGER NOT NULL,
        step INTEGER NOT NULL,
        block INTEGER NOT NULL
    )
    """,
    "CREATE INDEX events_by_chain ON events (chain)",
    """
    CREATE TABLE positions (
        plugin TEXT NOT NULL,
        chain INTEGER NOT NULL,
        position BLOB NOT NULL,
        PRIMARY KEY (plugin, chain)
    ) WITHOUT ROWID
    """,
)

# What the feed needs beside the log.
FEED_TABLES: Final = (
    # When the events up to this sequence, and above that of the row before, were committed: nanoseconds since the epoch.
    "CREATE TABLE commits (sequence INTEGER PRIMARY KEY, time INTEGER NOT NULL)",
    # Events of a chain up to this sequence are deleted, or will be: tip and final (block ids) say what they led to. The tip is a
    # block that is final for ever.
    "CREATE TABLE horizons (chain INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, tip INTEGER NOT NULL, final INTEGER)",
    # One row: what the store's cursors are sealed with.
    "CREATE TABLE cursor_key (key BLOB NOT NULL)",
)

TABLE_NAMES: Final = frozenset(
    {"chains", "blocks", "bodies", "waiting", "transactions", "events", "positions", "commits", "horizons", "cursor_key"}
)


def _add_feed(connection: sqlite3.Connection) -> None:
    for statement in FEED_TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO cursor_key VALUES (?)", (secrets.token_bytes(CURSOR_KEY_BYTES),))


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    """When the events there are were committed is not known: they count as of now."""
    _add_feed(connection)
    connection.execute("INSERT INTO commits SELECT max(sequence), ? FROM events HAVING count(*) > 0", (time.time_ns(),))


MIGRATIONS: Final[Mapping[int, Callable[[sqlite3.Connection], None]]] = {1: _from_1_to_2}


def create_tables(connection: sqlite3.Connection) -> None:
    """Makes an empty database a store of this version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in TABLES:
        connection.execute(statement)
    _add_feed(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Brings a store of an older version to this one, step by step."""
    for step in range(version, SCHEMA_VERSION):
        connection.execute("BEGIN IMMEDIATE")
        MIGRATIONS[step](connection)
        connection.execute(f"PRAGMA user_version = {step + 1}")
        connection.execute("COMMIT")
