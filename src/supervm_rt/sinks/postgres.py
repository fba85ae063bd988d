"""Events, blocks and IR in PostgreSQL, with the cursor in the same transaction. Needs the extra ``postgres`` (psycopg 3)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import psycopg
import trio
from psycopg import sql

from supervm_rt.errors import SinkError
from supervm_rt.model.chain import Step
from supervm_rt.sinks.tables import KEYS, Table, tables_of
from supervm_rt.store.feed import FeedEvent

T = TypeVar("T")

_CONNECT_SECONDS: Final = 10
_STATEMENT_SECONDS: Final = 300
_CANCEL_SECONDS: Final = 5.0
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS {}.cursors (name text PRIMARY KEY, cursor text)",
    # Who writes a chain's rows: two sinks would write each twice.
    "CREATE TABLE IF NOT EXISTS {}.chains (chain text PRIMARY KEY, sink text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS {}.events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chain text NOT NULL,"
    " sequence bigint, step text NOT NULL, block bytea NOT NULL, height bigint NOT NULL, committed timestamptz)",
    "CREATE TABLE IF NOT EXISTS {}.blocks (chain text, hash bytea, height bigint NOT NULL, parent bytea NOT NULL,"
    " time bigint NOT NULL, canonical boolean NOT NULL, final boolean NOT NULL, PRIMARY KEY (chain, hash))",
    "CREATE INDEX IF NOT EXISTS blocks_by_height ON {}.blocks (chain, height)",
)
_STEPS: Final = {
    Step.NEW: "INSERT INTO {}.blocks VALUES (%(chain)s, %(hash)s, %(height)s, %(parent)s, %(time)s, true, false)"
    " ON CONFLICT (chain, hash) DO UPDATE SET canonical = true RETURNING xmax = 0",
    Step.UNDO: "UPDATE {}.blocks SET canonical = false WHERE chain = %(chain)s AND hash = %(hash)s",
    Step.FINAL: "UPDATE {}.blocks SET final = true WHERE chain = %(chain)s AND hash = %(hash)s",
}


class PostgresSink:
    """``async with PostgresSink("host=… dbname=…") as sink: await drain(feed, "bitcoin", sink)``.

    The tables are made where there are none, in a schema of their own: see ``docs/consuming.md``. Every method raises SinkError
    where the server cannot be reached or refuses.
    """

    def __init__(self, connection: str, *, name: str = "supervm", schema: str = "supervm") -> None:
        """``connection``: as libpq takes it, a list of key=value or a URL. ``name``: under which the cursor is kept."""
        self._where = connection
        self._name = name
        self._schema = sql.Identifier(schema)
        self._connection: psycopg.Connection | None = None
        self._cursor: str | None = None
        self._known: dict[str, set[str]] = {}
        self._claimed: set[str] = set()
        self._turn = threading.Lock()

    async def __aenter__(self) -> Self:
        await self._in_thread(self._open)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close)

    async def cursor(self) -> str | None:
        """The cursor in the database."""
        self._cursor = await self._in_thread(self._read_cursor)
        return self._cursor

    async def write(self, events: list[FeedEvent]) -> None:
        """Writes events and cursor in one transaction. Refuses where another process has moved the cursor meanwhile."""
        self._cursor = await self._in_thread(partial(self._write, events))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # A server that does not answer must not keep a cancelled task; the transaction then ends with the connection.
        return await trio.to_thread.run_sync(self._translated, work, abandon_on_cancel=True)

    def _translated(self, work: Callable[[], T]) -> T:
        try:
            with self._turn:
                return work()
        except psycopg.Error as error:
            first = str(error).strip().splitlines()[:1]
            raise SinkError(
                f"PostgreSQL: {first[0] if first else type(error).__name__}",
                remedy="look at the server and the connection, and start the sink again: nothing was written twice or left out",
            ) from error

    def _open(self) -> None:
        self._connection = psycopg.connect(self._where, autocommit=True, connect_timeout=_CONNECT_SECONDS)
        with self._connection.transaction():
            # Two that make the tables at once would hinder one another.
            self._execute("SELECT pg_advisory_xact_lock(hashtext('supervm'))")
            self._execute("CREATE SCHEMA IF NOT EXISTS {}")
            for statement in _TABLES:
                self._execute(statement)
            self._execute("INSERT INTO {}.cursors VALUES (%(name)s, NULL) ON CONFLICT DO NOTHING", name=self._name)
        self._execute(f"SET statement_timeout = '{_STATEMENT_SECONDS}s'")

    def _close(self) -> None:
        """Also while a statement still runs in a thread that was given up."""
        if self._connection is None:
            return
        if not self._turn.acquire(blocking=False):
            with contextlib.suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
            if not self._turn.acquire(timeout=_CANCEL_SECONDS):
                return  # the thread ends with the process, the transaction with its connection
        try:
            self._connection.close()
        finally:
            self._turn.release()

    def _execute(self, statement: str, **values: object) -> psycopg.Cursor[tuple[object, ...]]:
        assert self._connection is not None, "the sink is not open"
        count = statement.count("{}")
        return self._connection.execute(sql.SQL(statement).format(*[self._schema] * count), values)

    def _read_cursor(self) -> str | None:
        row = self._execute("SELECT cursor FROM {}.cursors WHERE name = %(name)s", name=self._name).fetchone()
        return None if row is None or row[0] is None else str(row[0])

    def _write(self, events: list[FeedEvent]) -> str:
        assert self._connection is not None, "the sink is not open"
        known = {table: set(columns) for table, columns in self._known.items()}
        cursor = events[-1].cursor
        with self._connection.transaction():
            self._move(cursor)
            self._claim({event.chain for event in events})
            with self._connection.cursor().copy(
                sql.SQL("COPY {}.events (chain, sequence, step, block, height, committed) FROM STDIN").format(self._schema)
            ) as copy:
                for event in events:
                    copy.write_row(
                        (event.chain, event.sequence, str(event.step), event.block.hash, event.block.height, event.committed_at)
                    )
            for event in events:
                self._apply(event, known)
        # Only now: what was made in a transaction that was not committed is not there.
        self._known = known
        self._claimed |= {event.chain for event in events}
        return cursor

    def _move(self, cursor: str) -> None:
        moved = self._execute(
            "UPDATE {}.cursors SET cursor = %(cursor)s WHERE name = %(name)s AND cursor IS NOT DISTINCT FROM %(before)s",
            cursor=cursor,
            name=self._name,
            before=self._cursor,
        )
        if moved.rowcount != 1:
            raise SinkError(
                f"another process has moved the cursor of the sink {self._name}",
                remedy="run one process for each sink, or give this one a name and a schema of its own",
            )

    def _claim(self, chains: set[str]) -> None:
        for chain in chains - self._claimed:
            self._execute(
                "INSERT INTO {}.chains VALUES (%(chain)s, %(name)s) ON CONFLICT DO NOTHING", chain=chain, name=self._name
            )
            row = self._execute("SELECT sink FROM {}.chains WHERE chain = %(chain)s", chain=chain).fetchone()
            if row != (self._name,):
                raise SinkError(
                    f"the chain {chain} in this schema is written by another sink, {row[0] if row else 'unknown'}",
                    remedy="give this sink that name, or a schema of its own",
                )

    def _apply(self, event: FeedEvent, known: dict[str, set[str]]) -> None:
        done = self._execute(
            _STEPS[event.step],
            chain=event.chain,
            hash=event.block.hash,
            height=event.block.height,
            parent=event.parent,
            time=event.time,
        )
        # A block that is canonical again has its rows.
        if event.step is Step.NEW and done.fetchone() == (True,) and event.encoded:
            for table in tables_of(event.encoded):
                self._make(table, known)
                self._copy(event, table)

    def _make(self, table: Table, known: dict[str, set[str]]) -> None:
        name = sql.Identifier(table.name)
        if table.name not in known:
            assert self._connection is not None
            keys = sql.SQL("chain text, block bytea, row integer, PRIMARY KEY (chain, block, row)")
            self._connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {}.{} ({})").format(self._schema, name, keys))
            known[table.name] = set()
        for column, type_ in table.columns.items():
            if column not in known[table.name]:
                # A column that this block does not have is null, as those of witnesses are in blocks without any.
                assert self._connection is not None
                self._connection.execute(
                    sql.SQL("ALTER TABLE {}.{} ADD COLUMN IF NOT EXISTS {} {}").format(
                        self._schema,
                        name,
                        sql.Identifier(column),
                        sql.SQL(type_),
                    )
                )
                known[table.name].add(column)

    def _copy(self, event: FeedEvent, table: Table) -> None:
        assert self._connection is not None
        columns = sql.SQL(", ").join(map(sql.Identifier, (*KEYS, *table.columns)))
        statement = sql.SQL("COPY {}.{} ({}) FROM STDIN").format(self._schema, sql.Identifier(table.name), columns)
        with self._connection.cursor().copy(statement) as copy:
            for number, row in enumerate(table.rows):
                copy.write_row((event.chain, event.block.hash, number, *row))
