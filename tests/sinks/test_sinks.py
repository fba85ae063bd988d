"""A sink gets every event once, whatever fails; the IR comes as tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervm_rt.ir.columns import ColumnsError
from supervm_rt.sinks import drain
from supervm_rt.sinks.tables import tables_of
from supervm_rt.store import Store
from supervm_rt.store.feed import FeedEvent, open_feed
from tests.cli.support import supervm
from tests.feed.killed import RULES, inputs_of
from tests.feed.support import log_of, told
from tests.store.support import PLUGIN

CHAIN = "bitcoin"


class Memory:
    """A sink that fails now and then: before it has taken a batch, never half-way."""

    def __init__(self) -> None:
        self.events: list[FeedEvent] = []
        self.kept: str | None = None
        self.calls = 0

    async def cursor(self) -> str | None:
        return self.kept

    async def write(self, events: list[FeedEvent]) -> None:
        self.calls += 1
        if self.calls % 2:
            raise RuntimeError("no room")
        self.events += events
        self.kept = events[-1].cursor


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "chain.store"
    translator, inputs = inputs_of("sample", 0)
    assert translator is not None
    with Store.open(path) as store:
        store.mirror(CHAIN, translator=translator, rules=RULES).apply(PLUGIN, inputs)
    return path


def test_a_sink_that_fails_is_where_it_was(sample: Path) -> None:
    sink = Memory()

    async def test() -> None:
        async with open_feed(sample) as feed:
            while True:
                try:
                    if await drain(feed, CHAIN, sink, follow=False) == 0:
                        return
                except RuntimeError:
                    pass

    trio.run(test)
    with Store.open(sample, read_only=True) as store:
        assert told(sink.events) == log_of(store, CHAIN)
    assert sink.calls > 4


def test_the_ir_comes_as_tables(sample: Path) -> None:
    with Store.open(sample, read_only=True) as store:
        chain = store.chain(CHAIN)
        for height in (0, 150, 312):
            block = chain.block_at(height)
            assert block is not None
            tables = {table.name: (list(table.columns), list(table.rows)) for table in tables_of(chain.ir(block))}
            decoded = chain.decoded(block)
            names, rows = tables["bitcoin_transaction"]
            assert [row[names.index("id")] for row in rows] == [transaction.id for transaction in decoded.transactions]
            names, rows = tables["bitcoin_output"]
            assert names == ["owner", "amount", "script"]
            assert rows == [
                (number, output.amount, output.script)
                for number, transaction in enumerate(decoded.transactions)
                for output in transaction.outputs
            ]
    with pytest.raises(ColumnsError):
        tables_of(b"nothing")


def test_the_command_says_what_is_wrong(sample: Path, tmp_path: Path) -> None:
    for status, words, arguments in (
        (1, "there is no store", (CHAIN, "--store", tmp_path / "none", "--to", "host=/nowhere")),
        (1, "PostgreSQL: ", (CHAIN, "--store", sample, "--to", "host=/nowhere")),
        (2, "required", (CHAIN, "--store", sample)),
    ):
        ran = supervm("sink", "postgres", *arguments)
        assert ran.status == status, ran
        assert words in ran.err
