"""``python -m bench``: runs the rows, prints one table, writes build/bench.json."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator

from bench import building
from bench.measuring import Row, cpus, machine

ROOMS = {
    "ring": "ring.rows",
    "sandbox": "sandbox.rows",
    "parser": "parser.rows",
    "store": "store.rows",
    "reorg": "reorg.rows",
    "feed": "feed.rows",
    "decoder": "decoder.rows",
    "remote-300b": "remote.small",
    "remote-64k": "remote.medium",
    "remote-1m": "remote.large",
    "remote-latency": "remote_latency.rows",
}
"""Where the rows of each come from."""


def main() -> int:
    """0: measured; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="bench", description="Measures the native path beside its peers.")
    parser.add_argument("--only", choices=ROOMS, action="append", help="these rows; may be given again")
    parser.add_argument("--quick", action="store_true", help="less work for each row: to see that it runs, not to quote")
    options = parser.parse_args()
    building.build()
    os.sched_setaffinity(0, set(cpus()))
    found: list[Row] = []
    for room in options.only or ROOMS:
        for row in _room(room)(options.quick):
            print(f"  {row.name}", file=sys.stderr, flush=True)
            found.append(row)
    _print(found)
    _write(found, quick=options.quick)
    return 0


def _room(name: str) -> Callable[[bool], Iterator[Row]]:
    import importlib

    module, function = ROOMS[name].split(".")
    rows: Callable[[bool], Iterator[Row]] = getattr(importlib.import_module(f"bench.{module}"), function)
    return rows


def _print(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=", ".join(f"{key}: {value}" for key, value in machine().items()), title_style="")
    for heading in ("row", "ours", "peer", "ratio", "aim", "unit", "note"):
        table.add_column(heading, justify="right" if heading in {"ours", "peer", "ratio", "aim"} else "left")
    for row in rows:
        table.add_row(row.name, _number(row.ours), _number(row.peer), _number(row.ratio), _number(row.aim), row.unit, row.note)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _write(rows: list[Row], *, quick: bool) -> None:
    described = ", ".join(f"{key}: {value}" for key, value in machine().items())
    result: dict[str, dict[str, object]] = {
        row.name: {
            "ours": row.ours,
            "peer": row.peer,
            "peers": dict(row.peers),
            "ratio": row.ratio,
            "unit": row.unit,
            "aim": row.aim,
            "note": row.note,
            "machine": described,
            "quick": quick,
        }
        for row in rows
    }
    path = building.ROOT / "build" / "bench.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path.relative_to(building.ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
