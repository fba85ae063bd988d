"""Reading: blocks by name, transactions, fees; on real Bitcoin blocks made here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from supervm_rt.errors import NotInStore, StoreCorrupt
from supervm_rt.model.chain import BlockRef
from supervm_rt.store import BlockInput, BlockState, ChainReader, Store, StoredBlock, batch
from tests.store.support import (
    CHAIN,
    HEAVIEST,
    PLUGIN,
    REGTEST,
    bitcoin_block,
    bitcoin_id,
    bitcoin_transaction,
    block,
    coinbase,
    dev_mirror,
    line,
)

GENESIS = REGTEST.genesis_hash or b""


class Sample(NamedTuple):
    reader: ChainReader
    blocks: list[BlockInput]
    funding: bytes
    spending: bytes
    chained: bytes
    unfunded: bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chain.store"


@pytest.fixture
def sample(path: Path) -> Iterator[Sample]:
    """Three blocks over the genesis: the second spends the first's coinbase, the third spends something unknown."""
    funding = coinbase(1, 5000)
    first = bitcoin_block(GENESIS, [funding])
    spending = bitcoin_transaction([(bitcoin_id(funding), 0)], [3000, 1900])
    chained = bitcoin_transaction([(bitcoin_id(spending), 0), (bitcoin_id(spending), 1)], [4899])
    second = bitcoin_block(first.translated.hash, [coinbase(2, 5000), spending, chained])
    unfunded = bitcoin_transaction([(bytes(32), 7)], [1])
    third = bitcoin_block(second.translated.hash, [coinbase(3, 5000), unfunded])
    with Store.open(path) as store:
        mirror = store.mirror("btc", translator=REGTEST, rules=replace(HEAVIEST, final_depth=1))
        mirror.apply(PLUGIN, [first, second, third])
        yield Sample(store.chain("btc"), [first, second, third], funding, spending, chained, unfunded)


def test_a_transaction_is_found_by_its_id(sample: Sample) -> None:
    for height, position, raw in [(1, 0, sample.funding), (2, 1, sample.spending), (2, 2, sample.chained)]:
        found = sample.reader.transaction(bitcoin_id(raw))
        assert (found.block.height, found.position, found.transaction.id) == (height, position, bitcoin_id(raw))
        body = sample.reader.raw(found.block)
        assert body[found.transaction.offset : found.transaction.offset + found.transaction.size] == raw


@pytest.mark.parametrize("id_", [bytes(32), b"", b"short", bytes(33)])
def test_an_unknown_transaction_is_not_in_the_store(sample: Sample, id_: bytes) -> None:
    with pytest.raises(NotInStore, match="no transaction"):
        sample.reader.transaction(id_)


def test_an_id_with_the_same_prefix_is_another_transaction(sample: Sample) -> None:
    id_ = bitcoin_id(sample.spending)
    with pytest.raises(NotInStore):
        sample.reader.transaction(id_[:8] + bytes(24))


def test_fees_come_from_the_outputs_that_are_spent(sample: Sample) -> None:
    def fee(raw: bytes) -> int | None:
        return sample.reader.fee(sample.reader.transaction(bitcoin_id(raw)).transaction)

    assert fee(sample.spending) == 100
    assert fee(sample.chained) == 1
    assert fee(sample.funding) is None  # a coinbase
    assert fee(sample.unfunded) is None  # spends what is not in the store


def test_a_fee_is_unknown_where_the_spent_output_does_not_exist(sample: Sample) -> None:
    transaction = sample.reader.transaction(bitcoin_id(sample.spending)).transaction
    (spent,) = transaction.inputs
    assert sample.reader.fee(replace(transaction, inputs=(replace(spent, previous_index=1),))) is None
    assert sample.reader.fee(replace(transaction, inputs=())) is None


def test_the_canonical_block_of_a_transaction_is_preferred(sample: Sample, path: Path) -> None:
    spending = bitcoin_id(sample.spending)
    fork = [bitcoin_block(sample.blocks[1].translated.parent, [coinbase(2, 5000, b"fork"), sample.spending])]
    fork.append(bitcoin_block(fork[0].translated.hash, [coinbase(3, 5000, b"fork")]))
    fork.append(bitcoin_block(fork[1].translated.hash, [coinbase(4, 5000, b"fork")]))
    reader = sample.reader
    before = reader.transaction(spending).block.hash
    assert before == sample.blocks[1].translated.hash
    with contextlib.closing(Store.open(path, read_only=True)) as beside:
        store = reader._store
        mirror = store.mirror("btc", translator=REGTEST, rules=replace(HEAVIEST, final_depth=50))
        mirror.apply(PLUGIN, fork[:1])
        assert reader.transaction(spending).block.hash == before
        assert beside.chain("btc").transaction(spending).block.hash == before
        mirror.apply(PLUGIN, fork[1:])
        found = beside.chain("btc").transaction(spending)
    assert (found.block.hash, found.position) == (fork[0].translated.hash, 1)
    only_there = reader.transaction(bitcoin_id(sample.chained))
    assert only_there.block.state is BlockState.SIDE


def test_transactions_of_orphans_are_found_once_these_connect(path: Path, sample: Sample) -> None:
    tip = sample.blocks[2].translated.hash
    missing = bitcoin_block(tip, [coinbase(4, 5000)])
    orphan = bitcoin_block(
        missing.translated.hash, [coinbase(5, 5000), bitcoin_transaction([(bitcoin_id(sample.chained), 0)], [1])]
    )
    id_ = bitcoin_id(coinbase(5, 5000))
    store = sample.reader._store
    store.mirror("btc", translator=REGTEST, rules=HEAVIEST).apply(PLUGIN, [orphan])
    with pytest.raises(NotInStore):
        sample.reader.transaction(id_)
    store.mirror("btc", translator=REGTEST, rules=HEAVIEST).apply(PLUGIN, [missing])
    assert sample.reader.transaction(id_).block.height == 5


def test_the_index_is_searched_through_all_its_sections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SECTION_ROWS", 3)
    with Store.open(path) as store:
        mirror = store.mirror("btc", translator=REGTEST, rules=HEAVIEST)
        parent = GENESIS
        for height in range(1, 21):
            made = bitcoin_block(parent, [coinbase(height, 50)])
            mirror.apply(PLUGIN, [made])
            parent = made.translated.hash
        reader = store.chain("btc")
        for height in range(1, 21):
            assert reader.transaction(bitcoin_id(coinbase(height, 50))).block.height == height
        with store.snapshot() as connection:
            assert connection.execute("SELECT count(DISTINCT section) FROM transactions").fetchone()[0] >= 6


def test_blocks_are_named_by_height_or_by_whole_hash(sample: Sample) -> None:
    second = sample.blocks[1].translated
    text = second.hash.hex()
    for name in ("2", text, text.upper(), "0x" + text):
        found = sample.reader.find_block(name)
        assert (found.hash, found.height, found.time) == (second.hash, 2, second.time)
        assert sample.reader.decoded(found).hash == second.hash
    for name in ("9", text[:-2], text[:8], "", "-1", "no such", "é", "1" * 5000, "٣", f"{2**64}"):
        with pytest.raises(NotInStore) as caught:
            sample.reader.find_block(name)
        assert caught.value.remedy


def test_a_height_names_the_canonical_block(path: Path) -> None:
    with Store.open(path) as store:
        mirror = dev_mirror(store)
        mirror.apply(PLUGIN, [*line("a b c", "x", 0), *line("s", "a", 1), block("\x12", "b", 2), block("o", "nowhere", 1)])
        reader = store.chain(CHAIN)
        assert reader.find_block("1").hash == b"b"
        assert reader.block_at(3) is reader.block_at(-1) is reader.block_at(2**80) is None
        assert reader.find_block("12").hash == b"\x12"  # no canonical block stands at 12
        waiting = reader.block_by_hash(b"o")
        assert isinstance(waiting, StoredBlock)
        assert (waiting.state, waiting.height) == (BlockState.WAITING, 1)
        assert reader.block_by_hash(b"nobody") is None


def test_an_empty_chain_can_be_read(path: Path) -> None:
    with Store.open(path) as store:
        dev_mirror(store)
        reader = store.chain(CHAIN)
        assert (reader.tip(), reader.final(), reader.block_at(0)) == (None, None, None)
        assert reader.events() == []
        assert reader.statistics().blocks == 0
        assert (reader.info().family, reader.info().network) == ("dev", "")
        with pytest.raises(NotInStore, match="it is empty"):
            reader.find_block("0")
        with pytest.raises(NotInStore, match="has none yet"), Store.open(path.with_name("other")) as other:
            other.chain(CHAIN)


def test_an_ir_that_is_none_is_damage(path: Path) -> None:
    with Store.open(path) as store:
        dev_mirror(store).apply(PLUGIN, line("a", "x", 0))
        reader = store.chain(CHAIN)
        with pytest.raises(StoreCorrupt, match="cannot be decoded"):
            reader.decoded(reader.find_block("0"))


def test_final_is_a_state_of_the_canonical_blocks_up_to_the_last_final_one(sample: Sample) -> None:
    assert sample.reader.final() == BlockRef(sample.blocks[0].translated.hash, 1)
    assert [sample.reader.find_block(str(height)).state for height in range(4)] == [
        BlockState.FINAL,
        BlockState.FINAL,
        BlockState.CANONICAL,
        BlockState.CANONICAL,
    ]
