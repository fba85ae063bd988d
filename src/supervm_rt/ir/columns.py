"""The container of the encoded IR: named, typed columns in tables, in one run of bytes, little-endian.

A container describes itself, so that a column can be exported (to Parquet, to SQL) without knowing the chain::

    "SVIR"  u8 version (1)  u8 family length, family  u8 number of tables
    each table:   u8 name length, name  u32 rows  u8 number of columns
    each column:  u8 kind  [u8 width, for FIXED]  u8 name length, name
    then the data of every column in the same order, without gaps:
        integers, FIXED   rows values
        LIST              rows + 1 u32 offsets into the rows of the child table
        BINARY            rows + 1 u32 offsets, then the bytes that they delimit

Offsets begin at 0 and never fall. A LIST column is named after its child: ``transaction.input`` holds, for each row of
``transaction``, its rows of the table ``input``. A value that may be missing (a contract creation's recipient) is an empty
BINARY. Names are lower-case identifiers; names of tables are unique, names of columns in their table.
"""

from __future__ import annotations

import enum
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAGIC = b"SVIR"
VERSION = 1

_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_U32 = struct.Struct("<I")


class ColumnsError(ValueError):
    """Bytes that are not a container, or values that cannot be put into one."""


class Kind(enum.IntEnum):
    """How the values of a column are laid out."""

    UINT8 = 1
    UINT16 = 2
    UINT32 = 3
    UINT64 = 4
    INT32 = 5
    INT64 = 6
    FIXED = 7
    """Byte strings of one length."""
    BINARY = 8
    """Byte strings of any length."""
    LIST = 9
    """Rows of a child table."""


_INTEGERS = {
    Kind.UINT8: struct.Struct("<B"),
    Kind.UINT16: struct.Struct("<H"),
    Kind.UINT32: struct.Struct("<I"),
    Kind.UINT64: struct.Struct("<Q"),
    Kind.INT32: struct.Struct("<i"),
    Kind.INT64: struct.Struct("<q"),
}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """Kind of a column and, for FIXED, the length of its values in bytes (1 to 255)."""

    kind: Kind
    width: int = 0


UINT8 = ColumnType(Kind.UINT8)
UINT16 = ColumnType(Kind.UINT16)
UINT32 = ColumnType(Kind.UINT32)
UINT64 = ColumnType(Kind.UINT64)
INT32 = ColumnType(Kind.INT32)
INT64 = ColumnType(Kind.INT64)
BINARY = ColumnType(Kind.BINARY)
LIST = ColumnType(Kind.LIST)


def fixed(width: int) -> ColumnType:
    """The type of byte strings of this length."""
    return ColumnType(Kind.FIXED, width)


Schema = Mapping[str, Mapping[str, ColumnType]]
"""Tables, by name, of columns, by name, in the order in which they are stored."""


class ColumnData(NamedTuple):
    """A column to encode. For LIST the values are how many child rows belong to each row."""

    type: ColumnType
    values: Sequence[int] | Sequence[bytes]


def directory(family: str, schema: Schema) -> tuple[bytes, tuple[int, ...]]:
    """Everything that stands before the data, with no rows yet, and where each table's row count (u32) is to be written."""
    out = bytearray(MAGIC)
    out.append(VERSION)
    out += _short(family)
    out += _count("tables", len(schema))
    places = []
    for table, columns in schema.items():
        if not columns:
            raise ColumnsError(f"table {table!r} has no columns")
        out += _short(table)
        places.append(len(out))
        out += bytes(4)
        out += _count(f"columns of {table!r}", len(columns))
        for name, type_ in columns.items():
            out.append(type_.kind)
            if type_.kind is Kind.FIXED:
                if not 1 <= type_.width <= 255:
                    raise ColumnsError(f"{table}.{name}: a width of {type_.width} is not within 1 to 255")
                out.append(type_.width)
            out += _short(name)
    return bytes(out), tuple(places)


def encode_columns(family: str, tables: Mapping[str, Mapping[str, ColumnData]]) -> bytes:
    """Encodes tables of columns. Equal values give equal bytes. Raises ColumnsError."""
    head, places = directory(family, {table: {name: data.type for name, data in of.items()} for table, of in tables.items()})
    out = bytearray(head)
    rows = {table: len(next(iter(columns.values())).values) for table, columns in tables.items()}
    for place, count in zip(places, rows.values(), strict=True):
        _put_u32(out, place, count)
    for table, columns in tables.items():
        for name, data in columns.items():
            if len(data.values) != rows[table]:
                raise ColumnsError(f"{table}.{name} has {len(data.values)} rows, other columns of its table {rows[table]}")
            try:
                out += _encode_values(data)
            except (struct.error, TypeError, OverflowError) as error:
                raise ColumnsError(f"{table}.{name}: {error}") from None
            if data.type.kind is Kind.LIST and sum(map(int, data.values)) != rows.get(name):
                raise ColumnsError(f"{table}.{name} does not add up to the rows of the table {name!r}")
    return bytes(out)


def _encode_values(data: ColumnData) -> bytes:
    kind = data.type.kind
    if kind in _INTEGERS:
        return struct.pack(f"<{len(data.values)}{_INTEGERS[kind].format[1:]}", *data.values)
    if kind is Kind.LIST:
        return _encode_offsets([int(value) for value in data.values])
    values = [bytes(value) for value in data.values if isinstance(value, bytes)]
    if len(values) != len(data.values):
        raise TypeError("a value is not bytes")
    if kind is Kind.FIXED:
        if any(len(value) != data.type.width for value in values):
            raise TypeError(f"a value is not {data.type.width} bytes long")
        return b"".join(values)
    return _encode_offsets([len(value) for value in values]) + b"".join(values)


def _encode_offsets(lengths: Sequence[int]) -> bytes:
    offsets = [0]
    for length in lengths:
        if length < 0:
            raise OverflowError("a negative length")
        offsets.append(offsets[-1] + length)
    return struct.pack(f"<{len(offsets)}I", *offsets)


def _short(name: str) -> bytes:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise ColumnsError(f"{name!r} is not a lower-case name of at most 255 characters")
    return bytes([len(name)]) + name.encode("ascii")


def _count(what: str, count: int) -> bytes:
    if not 1 <= count <= 255:
        raise ColumnsError(f"{count} {what}; 1 to 255 can be stored")
    return bytes([count])


def _put_u32(out: bytearray, place: int, value: int) -> None:
    try:
        _U32.pack_into(out, place, value)
    except struct.error as error:
        raise ColumnsError(f"{value} rows: {error}") from None


class IntegerColumn:
    """Whole numbers."""

    def __init__(self, type_: ColumnType, data: bytes, base: int, rows: int) -> None:
        self.type = type_
        self.length = rows * _INTEGERS[type_.kind].size
        self._struct = _INTEGERS[type_.kind]
        self._data = data
        self._base = base
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> int:
        if not 0 <= row < self._rows:
            raise IndexError(row)
        value: int = self._struct.unpack_from(self._data, self._base + row * self._struct.size)[0]
        return value

    def __iter__(self) -> Iterator[int]:
        view = memoryview(self._data)[self._base : self._base + self.length]
        return (value for (value,) in self._struct.iter_unpack(view))


class FixedColumn:
    """Byte strings of one length."""

    def __init__(self, type_: ColumnType, data: bytes, base: int, rows: int) -> None:
        self.type = type_
        self.length = rows * type_.width
        self._data = data
        self._base = base
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < self._rows:
            raise IndexError(row)
        start = self._base + row * self.type.width
        return self._data[start : start + self.type.width]

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(self._rows))

    def joined(self) -> bytes:
        """All values, one behind the other."""
        return self._data[self._base : self._base + self.length]


class ListColumn:
    """For each row, the rows of the child table that belong to it."""

    def __init__(self, data: bytes, base: int, rows: int) -> None:
        self.type = LIST
        self.length = 4 * (rows + 1)
        self._offsets = _decode_offsets(data, base, rows)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> range:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return range(self._offsets[row], self._offsets[row + 1])

    def __iter__(self) -> Iterator[range]:
        return (self[row] for row in range(len(self)))

    @property
    def children(self) -> int:
        """How many rows the child table has to have."""
        return self._offsets[-1]


class BinaryColumn:
    """Byte strings of any length."""

    def __init__(self, data: bytes, base: int, rows: int) -> None:
        self.type = BINARY
        self._offsets = _decode_offsets(data, base, rows)
        self._data = data
        self._base = base + 4 * (rows + 1)
        self.length = 4 * (rows + 1) + self._offsets[-1]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._data[self._base + self._offsets[row] : self._base + self._offsets[row + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return (self[row] for row in range(len(self)))


Column = IntegerColumn | FixedColumn | ListColumn | BinaryColumn


def _decode_offsets(data: bytes, base: int, rows: int) -> Sequence[int]:
    if (rows + 1) * 4 > len(data) - base:
        raise ColumnsError("ends inside a column")
    values = list(struct.unpack_from(f"<{rows + 1}I", data, base))
    # Sorting what is sorted takes one pass in C; a loop in Python would be the slowest part of decoding.
    if values[0] != 0 or sorted(values) != values:
        raise ColumnsError("offsets that do not begin at 0 or fall")
    if sys.byteorder != "little":
        return values
    # As they lie there: as numbers of Python's they would take ten times the memory, for as long as the block is held.
    return memoryview(data)[base : base + 4 * (rows + 1)].cast("I")


class Columns:
    """A decoded container. Values are decoded when they are asked for; everything else was checked."""

    def __init__(self, family: str, rows: Mapping[str, int], tables: Mapping[str, Mapping[str, Column]]) -> None:
        self.family = family
        self.rows = rows
        """Number of rows by table."""
        self.tables = tables

    @classmethod
    def decode(cls, data: bytes) -> Columns:
        """Reads a container from bytes that nobody vouches for. Raises ColumnsError."""
        reader = _Reader(data)
        if not data.startswith(MAGIC):
            raise ColumnsError("not IR columns: they begin with SVIR")
        reader.take(len(MAGIC))
        if (version := reader.byte()) != VERSION:
            raise ColumnsError(f"IR columns of version {version}; this program reads version {VERSION}")
        family = reader.name()
        rows: dict[str, int] = {}
        schema: dict[str, dict[str, ColumnType]] = {}
        for _ in range(reader.count("tables")):
            table = reader.name()
            if table in schema:
                raise ColumnsError(f"two tables {table!r}")
            rows[table] = _U32.unpack(reader.take(4))[0]
            schema[table] = columns = {}
            for _ in range(reader.count(f"columns of {table!r}")):
                type_ = reader.type()
                name = reader.name()
                if name in columns:
                    raise ColumnsError(f"two columns {table}.{name}")
                columns[name] = type_
        at = reader.at
        tables: dict[str, dict[str, Column]] = {}
        for table, types in schema.items():
            tables[table] = {}
            for name, type_ in types.items():
                column = _decode_column(type_, data, at, rows[table])
                at += column.length
                if at > len(data):
                    raise ColumnsError(f"ends inside {table}.{name}")
                if isinstance(column, ListColumn) and column.children != rows.get(name):
                    raise ColumnsError(f"{table}.{name} does not add up to the rows of the table {name!r}")
                tables[table][name] = column
        if at != len(data):
            raise ColumnsError(f"{len(data) - at} bytes behind the last column")
        return cls(family, rows, tables)

    @property
    def schema(self) -> dict[str, dict[str, ColumnType]]:
        """The types of all columns."""
        return {table: {name: column.type for name, column in columns.items()} for table, columns in self.tables.items()}

    def has(self, table: str, name: str) -> bool:
        """Whether there is such a column."""
        return name in self.tables.get(table, {})

    def integers(self, table: str, name: str) -> IntegerColumn:
        """A column of whole numbers. Raises ColumnsError where there is none of this name and kind, as do those below."""
        column = self._column(table, name)
        if not isinstance(column, IntegerColumn):
            raise ColumnsError(f"{table}.{name} does not hold whole numbers")
        return column

    def fixed(self, table: str, name: str, width: int | None = None) -> FixedColumn:
        """A column of byte strings of one length (of ``width``, if given)."""
        column = self._column(table, name)
        if not isinstance(column, FixedColumn) or width not in {None, column.type.width}:
            raise ColumnsError(f"{table}.{name} does not hold strings of {width or 'the same number of'} bytes")
        return column

    def binary(self, table: str, name: str) -> BinaryColumn:
        """A column of byte strings of any length."""
        column = self._column(table, name)
        if not isinstance(column, BinaryColumn):
            raise ColumnsError(f"{table}.{name} does not hold byte strings")
        return column

    def children(self, table: str, name: str) -> ListColumn:
        """A column that gives each row its rows of the child table ``name``."""
        column = self._column(table, name)
        if not isinstance(column, ListColumn):
            raise ColumnsError(f"{table}.{name} does not hold rows of a child table")
        return column

    def _column(self, table: str, name: str) -> Column:
        try:
            return self.tables[table][name]
        except KeyError:
            raise ColumnsError(f"no column {table}.{name}") from None


def _decode_column(type_: ColumnType, data: bytes, at: int, rows: int) -> Column:
    if type_.kind is Kind.BINARY:
        return BinaryColumn(data, at, rows)
    if type_.kind is Kind.LIST:
        return ListColumn(data, at, rows)
    if type_.kind is Kind.FIXED:
        return FixedColumn(type_, data, at, rows)
    return IntegerColumn(type_, data, at, rows)


class _Reader:
    """Reads the directory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        piece = self.data[self.at : self.at + length]
        if len(piece) != length:
            raise ColumnsError("ends inside the directory")
        self.at += length
        return piece

    def byte(self) -> int:
        return self.take(1)[0]

    def count(self, what: str) -> int:
        if (count := self.byte()) == 0:
            raise ColumnsError(f"no {what}")
        return count

    def name(self) -> str:
        text = self.take(self.byte()).decode("latin-1")
        if not _NAME.fullmatch(text):
            raise ColumnsError(f"{text!r} is not a lower-case name")
        return text

    def type(self) -> ColumnType:
        number = self.byte()
        try:
            kind = Kind(number)
        except ValueError:
            raise ColumnsError(f"unknown kind of column {number}") from None
        if kind is not Kind.FIXED:
            return ColumnType(kind)
        if (width := self.byte()) == 0:
            raise ColumnsError("byte strings of length 0")
        return ColumnType(kind, width)
