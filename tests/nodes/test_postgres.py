"""The sink into PostgreSQL, beside a real server: what it holds is what the store says, whoever was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
import trio

from supervm_rt.errors import SinkError
from supervm_rt.ir.columns import Columns, Kind
from supervm_rt.sinks import drain
from supervm_rt.sinks.postgres import PostgresSink
from supervm_rt.store import BlockState, Store
from supervm_rt.store.feed import open_feed
from tests.cli.support import command
from tests.feed.killed import RULES, inputs_of
from tests.nodes.postgres import Postgres, binaries
from tests.store.support import PLUGIN, environment

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(300)]

CHAIN = "bitcoin"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    folder = binaries()
    if folder is None:
        reason = "no PostgreSQL: run `make test-nodes`, or set SUPERVM_POSTGRES to the folder of initdb and postgres"
        if os.environ.get("CI") == "true" or os.environ.get("SUPERVM_REQUIRE_NODES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with Postgres(folder) as running:
        yield running


@pytest.fixture
def database(server: Postgres, request: pytest.FixtureRequest) -> str:
    """A database of the test's own."""
    name = request.node.name.lower()
    with psycopg.connect(server.connection, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    return server.connection.replace("dbname=postgres", f"dbname={name}")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "chain.store"
    mirror_sample(path, 0, None)
    return path


def mirror_sample(path: Path, begin: int, end: int | None) -> int:
    translator, inputs = inputs_of("sample", 0)
    assert translator is not None
    with Store.open(path) as store:
        store.mirror(CHAIN, translator=translator, rules=RULES).apply(PLUGIN, inputs[begin:end])
    return len(inputs)


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()


def assert_holds_the_store(database: str, path: Path) -> None:
    """Events, blocks and every row of the IR."""
    with Store.open(path, read_only=True) as store:
        chain = store.chain(CHAIN)
        log = chain.events(limit=100_000)
        expected = [(event.sequence, str(event.step), event.block.hash, event.block.height) for event in log]
        assert rows(database, "SELECT sequence, step, block, height FROM supervm.events ORDER BY id") == expected
        blocks = {event.block.hash: chain.block_by_hash(event.block.hash) for event in log}
        stored = rows(database, "SELECT hash, height, parent, time, canonical, final FROM supervm.blocks")
        assert sorted(stored) == sorted(
            (
                block.hash,
                block.height,
                block.parent,
                block.time,
                block.state in {BlockState.CANONICAL, BlockState.FINAL},
                block.state is BlockState.FINAL,
            )
            for block in blocks.values()
            if block is not None
        )
        decoded = {hash_: Columns.decode(chain.ir(block)) for hash_, block in blocks.items() if block is not None}
    tables = {table for columns in decoded.values() for table in columns.tables}
    assert tables == {"block", "transaction", "input", "output", "witness"}
    for table in tables:
        names: list[str] = []
        for columns in decoded.values():
            plain = [name for name, column in columns.tables.get(table, {}).items() if column.type.kind is not Kind.LIST]
            names = max(names, plain, key=len)
        listed = ", ".join(f'"{name}"' for name in names)
        found: dict[bytes, list[tuple[Any, ...]]] = {}
        for block_id, *values in rows(database, f'SELECT block, {listed} FROM supervm.bitcoin_{table} ORDER BY block, "row"'):
            found.setdefault(block_id, []).append(tuple(map(plain_value, values)))
        assert found == {
            hash_: [
                tuple(columns.tables[table][name][row] if columns.has(table, name) else None for name in names)
                for row in range(count)
            ]
            for hash_, columns in decoded.items()
            if (count := columns.rows.get(table, 0))
        }


def plain_value(value: object) -> object:
    return int(value) if type(value).__name__ == "Decimal" else value  # type: ignore[call-overload]


def test_the_sample_chain(database: str, sample: Path) -> None:
    async def fill() -> int:
        async with open_feed(sample) as feed, PostgresSink(database) as sink:
            return await drain(feed, CHAIN, sink, follow=False)

    assert trio.run(fill) == len(rows(database, "SELECT 1 FROM supervm.events"))
    assert_holds_the_store(database, sample)
    assert trio.run(fill) == 0
    # What a user would ask: the balance of a script, from the canonical chain alone.
    spent = (
        "SELECT sum(o.amount) FROM supervm.bitcoin_output o JOIN supervm.blocks b ON b.hash = o.block AND b.canonical"
        " JOIN supervm.bitcoin_transaction t ON t.block = o.block AND t.row = o.owner"
    )
    with Store.open(sample, read_only=True) as store:
        chain = store.chain(CHAIN)
        tip = chain.tip()
        assert tip is not None
        canonical = [chain.block_at(height) for height in range(tip.height + 1)]
        total = sum(
            output.amount
            for block in canonical
            if block is not None
            for transaction in chain.decoded(block).transactions
            for output in transaction.outputs
        )
    assert rows(database, spent) == [(total,)]


def test_killed_at_any_moment(database: str, tmp_path: Path) -> None:
    store = tmp_path / "chain.store"
    random = Random(1)
    done = 10
    count = mirror_sample(store, 0, done)
    arguments = ("sink", "postgres", CHAIN, "--store", store, "--to", database)
    killed = 0
    while done < count:
        sink = subprocess.Popen(command(*arguments, "--follow"), env=environment(), stderr=subprocess.DEVNULL)
        for _ in range(random.randint(1, 10)):
            mirror_sample(store, done, done + 6)
            done += 6
        time.sleep(random.random())
        sink.send_signal(signal.SIGKILL)
        sink.wait()
        killed += 1
    ran = subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert killed > 3
    assert_holds_the_store(database, store)


def test_a_server_that_ends_its_sessions_is_said_and_nothing_is_lost(database: str, sample: Path) -> None:
    async def interrupted() -> None:
        async with open_feed(sample) as feed, PostgresSink(database) as sink:
            subscription = feed.subscribe(CHAIN, cursor=await sink.cursor(), ir=True, follow=False)
            await sink.write((await subscription.batch())[:50])
            rows(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()",
            )
            with pytest.raises(SinkError, match="start the sink again"):
                await sink.write(await subscription.batch())

    async def rest() -> None:
        async with open_feed(sample) as feed, PostgresSink(database) as sink:
            await drain(feed, CHAIN, sink, follow=False)

    trio.run(interrupted)
    trio.run(rest)
    assert_holds_the_store(database, sample)


def test_two_writers_do_not_double(database: str, sample: Path) -> None:
    async def both() -> None:
        async with open_feed(sample) as feed, PostgresSink(database) as one, PostgresSink(database) as two:
            first = feed.subscribe(CHAIN, cursor=await one.cursor(), ir=True, follow=False)
            second = feed.subscribe(CHAIN, cursor=await two.cursor(), ir=True, follow=False)
            await one.write(await first.batch())
            with pytest.raises(SinkError, match="another process has moved the cursor"):
                await two.write(await second.batch())
            async with PostgresSink(database, name="other") as third:
                with pytest.raises(SinkError, match="written by another sink, supervm"):
                    await drain(feed, CHAIN, third, follow=False)
            await drain(feed, CHAIN, two, follow=False)

    trio.run(both)
    assert_holds_the_store(database, sample)


def test_refusals_on_the_command_line(server: Postgres, sample: Path) -> None:
    for where in ("host=/nowhere", server.connection + "x", "what=1"):
        ran = subprocess.run(
            command("sink", "postgres", CHAIN, "--store", sample, "--to", where),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 1
        assert "PostgreSQL: " in ran.stderr
        assert "Traceback" not in ran.stderr
