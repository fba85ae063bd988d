"""How commands speak: JSON lines for programs, aligned text for people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from supervm_rt.model.chain import BlockRef


def add_json_option(parser: argparse.ArgumentParser, what: str = "the answer") -> None:
    """Adds ``--json``."""
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def print_json(value: object) -> None:
    """One value, one line. Text that no Unicode encoding holds comes out as JSON escapes it."""
    print(json.dumps(value, separators=(", ", ": ")))


def print_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one pair a line, aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:<{width}}  {value}")


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Rows of the same fields, under their names."""
    table = [{name: str(value) for name, value in row.items()} for row in rows]
    if not table:
        return
    widths = {name: max(len(name), *(len(row[name]) for row in table)) for name in table[0]}
    print("  ".join(f"{name:<{width}}" for name, width in widths.items()).rstrip())
    for row in table:
        print("  ".join(f"{row[name]:<{width}}" for name, width in widths.items()).rstrip())


def block_ref(block: BlockRef | None) -> dict[str, object] | None:
    """A block's id and height for JSON; None stays None."""
    return {"hash": block.hash.hex(), "height": block.height} if block else None


def block_text(block: BlockRef | None) -> str:
    """The same for people."""
    return f"{block.hash.hex()} at height {block.height}" if block else "none"


def moment(seconds: int) -> str:
    """Seconds since the epoch as a date in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
