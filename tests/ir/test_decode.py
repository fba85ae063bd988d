"""Encoded IR as values: everything that the raw block says, a transaction at a time."""

from __future__ import annotations

from typing import Any

import pytest

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.columns import BINARY, INT64, UINT8, UINT32, ColumnData, Columns, ColumnsError, encode_columns, fixed
from supervm_rt.ir.decode import LazyTransactions, decode_block
from supervm_rt.ir.translator import RawBlock
from supervm_rt.model.ir import BlockIR, TransactionInput, TransactionIR, TransactionKind
from tests.ir.blocks import Block, coinbase, merkle, spend, witness_block
from tests.ir.test_columns import values

FULL = witness_block()
RAW = FULL.raw()


def decoded(block: Block) -> BlockIR:
    return decode_block(BitcoinTranslator("regtest").translate(RawBlock(block.raw())).ir)


def test_block_fields() -> None:
    block = decoded(FULL)
    stripped = 81 + sum(len(transaction.stripped()) for transaction in FULL.transactions)
    assert (block.family, block.parent, block.time) == ("bitcoin", FULL.previous[::-1], FULL.time)
    assert block.header == {
        "version": FULL.version,
        "merkle_root": merkle([transaction.txid for transaction in FULL.transactions])[::-1],
        "bits": FULL.bits,
        "nonce": int.from_bytes(RAW[76:80], "little"),
        "size": len(RAW),
        "stripped_size": stripped,
        "weight": 3 * stripped + len(RAW),
    }
    assert decoded(Block((coinbase(),), version=-5)).header["version"] == -5


@pytest.mark.parametrize("block", [FULL, Block((coinbase(), spend(1, inputs=2), spend(2, outputs=0)))])
def test_transaction_fields(block: Block) -> None:
    raw = block.raw()
    for position, (made, read) in enumerate(zip(block.transactions, decoded(block).transactions, strict=True)):
        assert (read.id, read.witness_id) == (made.txid[::-1], made.wtxid[::-1])
        assert (read.position, read.version, read.lock_time, read.kind) == (
            position,
            made.version,
            made.lock_time,
            TransactionKind.UTXO,
        )
        assert (read.size, read.weight) == (len(made.raw()), 3 * len(made.stripped()) + len(made.raw()))
        assert read.virtual_size == -(-read.weight // 4)
        assert raw[read.offset : read.offset + read.size] == made.raw()
        assert read.coinbase == (position == 0)
        assert list(read.inputs) == [
            TransactionInput(spent.previous[::-1], spent.index, spent.sequence, spent.script, spent.witness)
            for spent in made.spends
        ]
        assert [(paid.amount, paid.script) for paid in read.outputs] == [(paid.amount, paid.script) for paid in made.pays]


def test_transactions_are_a_sequence() -> None:
    transactions = decoded(FULL).transactions
    assert isinstance(transactions, LazyTransactions)
    assert len(transactions) == 5
    assert transactions[-1] == transactions[4]
    assert [item.position for item in transactions[1:4:2]] == [1, 3]
    assert transactions == decoded(FULL).transactions == tuple(transactions)
    assert transactions != decoded(Block((coinbase(),))).transactions
    assert transactions != 5
    for place in (5, -6):
        with pytest.raises(IndexError):
            transactions[place]
    with pytest.raises(TypeError, match="unhashable"):
        hash(transactions)


def test_blocks_are_values() -> None:
    assert decoded(FULL) == decoded(FULL)
    assert len({decoded(FULL), decoded(FULL), decoded(Block((coinbase(),)))}) == 2


def test_one_transaction_is_decoded_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    transactions = decoded(FULL).transactions
    positions: list[int] = []

    def watched(*, position: int, **others: Any) -> TransactionIR:
        positions.append(position)
        return TransactionIR(position=position, **others)

    monkeypatch.setattr("supervm_rt.ir.decode.TransactionIR", watched)
    assert transactions[3].position == 3
    assert positions == [3]


def damaged(table: str, name: str, data: ColumnData | None) -> bytes:
    """The IR of the full block with one column replaced, or left out."""
    tables = values(Columns.decode(BitcoinTranslator("regtest").translate(RawBlock(RAW)).ir))
    if data is None:
        del tables[table][name]
    else:
        tables[table][name] = data
    return encode_columns("bitcoin", tables)


@pytest.mark.parametrize(
    ("table", "name", "data", "said"),
    [
        ("block", "id", None, "no column block.id"),
        ("block", "time", ColumnData(BINARY, [b""]), "whole numbers"),
        ("block", "transaction_count", ColumnData(UINT32, [4]), "number of transactions"),
        ("transaction", "id", ColumnData(fixed(31), [bytes(31)] * 5), "32 bytes"),
        ("transaction", "lock_time", None, "no column transaction.lock_time"),
        ("output", "amount", ColumnData(BINARY, [b""] * 9), "whole numbers"),
        ("input", "script", ColumnData(UINT8, [1] * 8), "byte strings"),
        ("witness", "item", ColumnData(UINT8, [1] * 7), "byte strings"),
    ],
)
def test_columns_that_are_missing_or_of_another_kind(table: str, name: str, data: ColumnData | None, said: str) -> None:
    rows = Columns.decode(damaged("block", "time", ColumnData(INT64, [0]))).rows[table]
    if data is not None:
        data = ColumnData(data.type, [data.values[0]] * rows)  # type: ignore[arg-type]
    with pytest.raises(ColumnsError, match=said):
        decode_block(damaged(table, name, data))


def test_a_container_of_something_else_is_no_block() -> None:
    for tables in ({"thing": {"id": ColumnData(UINT8, [1])}}, {"block": {"id": ColumnData(UINT8, [])}}):
        with pytest.raises(ColumnsError, match="not the IR of one block"):
            decode_block(encode_columns("any", tables))
