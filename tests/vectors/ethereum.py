"""Ethereum's public multi-fork tests (``eth_multifork.json``), as reorg sequences and the answers that they must get."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "ethereum" / "eth_multifork.json"
CASES = 30

_PARENT, _DIFFICULTY, _NUMBER = 0, 7, 8


@dataclass(frozen=True)
class Case:
    """One case of the file. A replay of ``lines`` answers ``events``, one list for each line after the first."""

    name: str
    lines: list[str]
    events: list[list[list[str]]]
    last_block_hash: str


@cache
def _file() -> Any:
    return json.loads(DATA.read_text())


def case(number: int) -> Case:
    """Case 0 to ``CASES`` - 1; FileNotFoundError where the data is absent."""
    told = _file()["cases"][number]
    genesis = header(told["genesis_rlp"])
    root = {"hash": told["genesis_hash"], "height": int.from_bytes(genesis[_NUMBER])}
    lines: list[dict[str, Any]] = [{"mode": "heaviest", "root": root, "final_depth": None, "orphans": 0}]
    for block in told["blocks"]:
        fields = header(block["rlp"])
        lines.append(
            {
                "hash": block["hash"],
                "parent": "0x" + fields[_PARENT].hex(),
                "height": int.from_bytes(fields[_NUMBER]),
                "weight": int.from_bytes(fields[_DIFFICULTY]),
            }
        )
    return Case(told["name"], list(map(json.dumps, lines)), told["derived_events_per_block"], told["lastblockhash"])


def header(rlp: str) -> list[bytes]:
    """The header fields of a block: the strings in the first list within the outer list."""
    raw = bytes.fromhex(rlp.removeprefix("0x"))
    start, _ = _span(raw, 0)
    start, end = _span(raw, start)
    fields = []
    while start < end:
        start, stop = _span(raw, start)
        fields.append(raw[start:stop])
        start = stop
    return fields


def _span(raw: bytes, at: int) -> tuple[int, int]:
    """Where the content of the item at this place begins and ends (RLP)."""
    prefix = raw[at]
    if prefix < 0x80:
        return at, at + 1
    short = 0xC0 if prefix >= 0xC0 else 0x80
    if prefix <= short + 55:
        return at + 1, at + 1 + prefix - short
    size = prefix - short - 55
    return at + 1 + size, at + 1 + size + int.from_bytes(raw[at + 1 : at + 1 + size])
