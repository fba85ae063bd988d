"""The container of the IR: what goes in comes out, equal values give equal bytes, and no bytes do harm."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.columns import (
    BINARY,
    INT32,
    INT64,
    LIST,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    BinaryColumn,
    ColumnData,
    Columns,
    ColumnsError,
    ColumnType,
    FixedColumn,
    IntegerColumn,
    ListColumn,
    fixed,
)
from supervm_rt.ir.columns import encode_columns as encode
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.schemas import BITCOIN, BITCOIN_WITNESS
from supervm_rt.ir.translator import RawBlock
from tests.ir.blocks import Block, coinbase, spend, witness_block

Tables = Mapping[str, Mapping[str, ColumnData]]

# What an account-based chain would store: amounts of 256 bits, a recipient that may be missing, logs with their topics.
ACCOUNTS: Tables = {
    "block": {"id": ColumnData(fixed(32), [b"\1" * 32]), "gas_used": ColumnData(UINT64, [21_000])},
    "transaction": {
        "sender": ColumnData(fixed(20), [b"\2" * 20, b"\3" * 20]),
        "recipient": ColumnData(BINARY, [b"\4" * 20, b""]),
        "value": ColumnData(fixed(32), [(10**30).to_bytes(32, "little"), bytes(32)]),
        "status": ColumnData(UINT8, [1, 0]),
        "log": ColumnData(LIST, [0, 2]),
    },
    "log": {"data": ColumnData(BINARY, [b"", b"abc"]), "topic": ColumnData(LIST, [1, 2])},
    "topic": {"hash": ColumnData(fixed(32), [bytes(32), b"\5" * 32, b"\6" * 32])},
}


def values(columns: Columns) -> dict[str, dict[str, ColumnData]]:
    """A decoded container in the form that is encoded."""
    out: dict[str, dict[str, ColumnData]] = {}
    for table, of in columns.tables.items():
        out[table] = {}
        for name, column in of.items():
            if isinstance(column, ListColumn):
                out[table][name] = ColumnData(LIST, [len(rows) for rows in column])
            else:
                out[table][name] = ColumnData(column.type, everything(column))
    return out


def everything(column: IntegerColumn | FixedColumn | BinaryColumn) -> list[int] | list[bytes]:
    if isinstance(column, IntegerColumn):
        return list(column)
    return list(column)


def test_other_chains_fit_in() -> None:
    columns = Columns.decode(encode("ethereum", ACCOUNTS))
    assert columns.family == "ethereum"
    assert columns.rows == {"block": 1, "transaction": 2, "log": 2, "topic": 3}
    assert columns.binary("transaction", "recipient")[1] == b""
    assert list(columns.children("transaction", "log")) == [range(0), range(2)]
    assert list(columns.children("log", "topic")) == [range(1), range(1, 3)]
    assert columns.integers("block", "gas_used")[0] == 21_000
    assert columns.fixed("transaction", "sender", 20).joined() == b"\2" * 20 + b"\3" * 20
    assert columns.has("log", "data")
    assert not columns.has("log", "address")
    assert not columns.has("uncle", "id")
    assert columns.schema == {table: {name: data.type for name, data in of.items()} for table, of in ACCOUNTS.items()}


INTEGERS = {
    UINT8: st.integers(0, 255),
    UINT16: st.integers(0, (1 << 16) - 1),
    UINT32: st.integers(0, (1 << 32) - 1),
    UINT64: st.integers(0, (1 << 64) - 1),
    INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    INT64: st.integers(-(1 << 63), (1 << 63) - 1),
}


@st.composite
def containers(draw: st.DrawFn) -> Tables:
    """Tables with columns of every kind; every table but the first has the one before it as its parent."""
    tables: dict[str, dict[str, ColumnData]] = {}
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), min_size=1, max_size=4, unique=True))
    for place, table in enumerate(names):
        of: dict[str, ColumnData] = {}
        for number, type_ in enumerate(draw(st.lists(st.sampled_from([*INTEGERS, BINARY, fixed(1), fixed(32)]), min_size=1))):
            of[f"c{number}__"] = ColumnData(type_, draw(st.lists(cells(type_), min_size=rows, max_size=rows)))
        if place + 1 < len(names):
            children = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
            of[names[place + 1]] = ColumnData(LIST, children)
            rows = sum(children)
        tables[table] = of
    return tables


def cells(type_: ColumnType) -> st.SearchStrategy[Any]:
    if type_ in INTEGERS:
        return INTEGERS[type_]
    return st.binary(max_size=9) if type_ == BINARY else st.binary(min_size=type_.width, max_size=type_.width)


@given(containers())
def test_what_goes_in_comes_out(tables: Tables) -> None:
    encoded = encode("any", tables)
    decoded = values(Columns.decode(encoded))
    assert decoded == tables
    assert encode("any", decoded) == encoded


@pytest.mark.parametrize(
    ("block", "schema"), [(Block((coinbase(), spend(1, inputs=3))), BITCOIN), (witness_block(), BITCOIN_WITNESS)]
)
def test_compiled_encoder_writes_this_very_format(block: Block, schema: object) -> None:
    ir = BitcoinTranslator("regtest").translate(RawBlock(block.raw())).ir
    columns = Columns.decode(ir)
    assert columns.schema == schema
    assert encode("bitcoin", values(columns)) == ir


@pytest.mark.parametrize(
    "sample", [encode("ethereum", ACCOUNTS), BitcoinTranslator("regtest").translate(RawBlock(witness_block().raw())).ir]
)
def test_every_truncation_is_refused(sample: bytes) -> None:
    for length in range(len(sample)):
        with pytest.raises(ColumnsError):
            Columns.decode(sample[:length])
    with pytest.raises(ColumnsError, match="behind the last column"):
        Columns.decode(sample + b"\0")


SAMPLE = BitcoinTranslator("regtest").translate(RawBlock(witness_block().raw())).ir


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_damaged_bytes_are_refused_or_read_within_bounds(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(SAMPLE)
    for place, by in flips:
        damaged[place] ^= by
    try:
        block = decode_block(bytes(damaged))
    except ColumnsError:
        return
    transactions = list(block.transactions)
    assert sum(len(spent.script) for transaction in transactions for spent in transaction.inputs) <= len(SAMPLE)


@given(st.binary(max_size=200).map(b"SVIR\x01".__add__) | st.binary(max_size=50))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        columns = Columns.decode(data)
    except ColumnsError:
        return
    assert encode(columns.family, values(columns)) == data


def container(*tables: tuple[bytes, int, list[tuple[bytes, bytes]]], data: bytes = b"", head: bytes = b"SVIR\x01") -> bytes:
    """A container made by hand: tables of (name, rows, [(kind, name)])."""
    out = head + b"\x01f" + bytes([len(tables)])
    for table, rows, columns in tables:
        out += bytes([len(table)]) + table + struct.pack("<I", rows) + bytes([len(columns)])
        for kind, name in columns:
            out += kind + bytes([len(name)]) + name
    return out + data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "SVIR"),
        (b"PAR1" + bytes(20), "SVIR"),
        (container((b"t", 0, [(b"\3", b"a")]), head=b"SVIR\x02"), "version 2"),
        (container(), "no tables"),
        (container((b"t", 0, [])), "no columns"),
        (container((b"T", 0, [(b"\3", b"a")])), "lower-case"),
        (container((b"t", 0, [(b"\3", b"a b")])), "lower-case"),
        (container((b"t", 0, [(b"\3", b"a\n")])), "lower-case"),
        (container((b"", 0, [(b"\3", b"a")])), "lower-case"),
        (container((b"t", 0, [(b"\3", b"a")]), (b"t", 0, [(b"\3", b"a")])), "two tables"),
        (container((b"t", 0, [(b"\3", b"a"), (b"\3", b"a")])), "two columns"),
        (container((b"t", 0, [(b"\0", b"a")])), "unknown kind of column 0"),
        (container((b"t", 0, [(b"\x0a", b"a")])), "unknown kind of column 10"),
        (container((b"t", 0, [(b"\7\0", b"a")])), "length 0"),
        (container((b"t", 0xFFFFFFFF, [(b"\3", b"a")]), data=bytes(8)), "ends inside t.a"),
        (container((b"t", 0xFFFFFFFF, [(b"\7\xff", b"a")]), data=bytes(8)), "ends inside t.a"),
        (container((b"t", 0xFFFFFFFF, [(b"\x08", b"a")]), data=bytes(8)), "ends inside"),
        (container((b"t", 1, [(b"\x08", b"a")]), data=struct.pack("<II", 1, 1)), "offsets"),
        (container((b"t", 2, [(b"\x08", b"a")]), data=struct.pack("<III", 0, 2, 1) + b"x"), "offsets"),
        (container((b"t", 1, [(b"\x08", b"a")]), data=struct.pack("<II", 0, 5) + b"abcd"), "ends inside t.a"),
        (container((b"t", 1, [(b"\x09", b"a")]), data=struct.pack("<II", 0, 0)), "does not add up"),
        (
            container((b"t", 1, [(b"\x09", b"u")]), (b"u", 1, [(b"\1", b"a")]), data=struct.pack("<II", 0, 2) + b"x"),
            "does not add up",
        ),
        (container((b"t", 1, [(b"\1", b"a")]), data=b"xy"), "1 bytes behind"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ColumnsError, match=said):
        Columns.decode(data)


def one(type_: ColumnType, cells: list[int] | list[bytes]) -> Tables:
    return {"t": {"a": ColumnData(type_, cells)}}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "0 tables"),
        ({"t": {}}, "no columns"),
        ({"t": {f"c{number}": ColumnData(UINT8, []) for number in range(256)}}, "256 columns"),
        ({"T": {"a": ColumnData(UINT8, [])}}, "lower-case"),
        ({"t" * 256: {"a": ColumnData(UINT8, [])}}, "at most 255"),
        (one(UINT8, [256]), "t.a"),
        (one(UINT8, [b"x"]), "t.a"),
        (one(INT32, [1 << 31]), "t.a"),
        (one(BINARY, [1]), "not bytes"),
        (one(fixed(2), [b"abc"]), "2 bytes"),
        (one(fixed(0), []), "width of 0"),
        (one(fixed(256), []), "width of 256"),
        (one(LIST, [-1]), "negative"),
        (one(LIST, [1]), "does not add up"),
        (one(LIST, [1 << 33]), "t.a"),
        ({"t": {"a": ColumnData(UINT8, [1]), "b": ColumnData(UINT8, [])}}, "t.b has 0 rows"),
    ],
)
def test_what_cannot_be_encoded_is_said(tables: Tables, said: str) -> None:
    with pytest.raises(ColumnsError, match=said):
        encode("any", tables)


def test_asking_for_what_is_not_there() -> None:
    columns = Columns.decode(encode("any", ACCOUNTS))
    with pytest.raises(ColumnsError, match=r"no column block\.time"):
        columns.integers("block", "time")
    with pytest.raises(ColumnsError, match="whole numbers"):
        columns.integers("block", "id")
    with pytest.raises(ColumnsError, match="20 bytes"):
        columns.fixed("block", "id", 20)
    with pytest.raises(ColumnsError, match="byte strings"):
        columns.binary("block", "id")
    with pytest.raises(ColumnsError, match="child table"):
        columns.children("block", "id")
    for table, name in (("block", "id"), ("block", "gas_used"), ("log", "data"), ("log", "topic")):
        for row in (-1, columns.rows[table]):
            with pytest.raises(IndexError):
                columns.tables[table][name][row]
