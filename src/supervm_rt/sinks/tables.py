"""The IR as tables of SQL: the container of columns describes itself, so every family has its tables without code of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from supervm_rt.ir.columns import Column, Columns, Kind

KEYS: Final = ("chain", "block", "row")
"""Columns that every table begins with: the chain's name, the block's id, the row in the block's table, from 0."""
OWNER: Final = "owner"
"""Column of a child's table: the row of its parent's table that it belongs to."""

_TYPES: Final[Mapping[Kind, str]] = {
    Kind.UINT8: "smallint",
    Kind.UINT16: "integer",
    Kind.UINT32: "bigint",
    Kind.UINT64: "numeric(20)",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.FIXED: "bytea",
    Kind.BINARY: "bytea",
}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of one block."""

    name: str
    columns: Mapping[str, str]
    """Type by name, without KEYS; the owner first, where there is one."""
    rows: Iterator[tuple[int | bytes, ...]]
    """Values of the columns, in the order of the rows."""


def tables_of(ir: bytes) -> list[Table]:
    """The tables of a block's encoded IR. Raises ColumnsError."""
    columns = Columns.decode(ir)
    owners: dict[str, list[int]] = {}
    for table in columns.tables.values():
        for name, column in table.items():
            if column.type.kind is Kind.LIST:
                owners[name] = [row for row, children in enumerate(column) if isinstance(children, range) for _ in children]
    found = []
    for name, table in columns.tables.items():
        plain = {column: values for column, values in table.items() if values.type.kind is not Kind.LIST}
        types = {column: _TYPES[values.type.kind] for column, values in plain.items()}
        values: list[Sequence[int] | Column] = list(plain.values())
        if name in owners:
            types = {OWNER: "integer", **types}
            values = [owners[name], *values]
        found.append(Table(f"{columns.family}_{name}", types, zip(*values, strict=True)))
    return found
