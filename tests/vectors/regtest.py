"""A real node's answers to forks (``regtest_forks_A.json``), as reorg sequences and the answers that they must get."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "bitcoin" / "regtest_forks_A.json"
SCENARIOS = 12

_VERDICTS = {None: "accepted", "inconclusive": "accepted", "prev-blk-not-found": "orphan", "duplicate": "duplicate"}
_STEPS = {"connect": "new", "disconnect": "undo"}
_CANNOT_BE_SAID = {"high-hash", "bad-txnmrklroot"}


@dataclass(frozen=True)
class Scenario:
    """One scenario of the file. A replay of ``lines`` answers ``answers``, one for each line after the first."""

    name: str
    lines: list[str]
    answers: list[dict[str, Any]]
    left_out: int
    """Steps that no reorg sequence can express: the node looked into the block and refused it."""


@cache
def _file() -> Any:
    return json.loads(DATA.read_text())


def scenario(number: int) -> Scenario:
    """Scenario 0 to ``SCENARIOS`` - 1; FileNotFoundError where the data is absent."""
    base, told = _file()["base"], _file()["scenarios"][number]
    blocks = {block["hash"]: block for block in told["blocks"]}
    heights = {block["hash"]: height for height, block in enumerate(base, start=1)}

    def height(hash_: str) -> int:
        if hash_ not in heights:
            heights[hash_] = height(blocks[hash_]["prev"]) + 1
        return heights[hash_]

    root = {"hash": base[-1]["hash"], "height": len(base)}
    lines = [{"mode": "heaviest", "root": root, "final_depth": None, "orphans": 0}]
    answers = []
    for step in told["steps"]:
        if step["result"] in _CANNOT_BE_SAID:
            continue
        block = blocks[step["submit"]]
        hash_ = block["hash"]
        lines.append({"hash": hash_, "parent": block["prev"], "height": height(hash_), "weight": work(block["raw"])})
        answers.append(
            {
                "input": hash_,
                "verdict": _VERDICTS[step["result"]],
                "events": [[_STEPS[kind], moved] for kind, moved in step["events"]],
                "tip": {"hash": step["tip"], "height": step["height"]},
            }
        )
    return Scenario(told["name"], list(map(json.dumps, lines)), answers, len(told["steps"]) - len(answers))


def work(raw: str) -> int:
    """The work that a block's header says was done, from its bits: the expected number of hashes."""
    bits = int.from_bytes(bytes.fromhex(raw[144:152]), "little")
    mantissa, exponent = bits & 0x7FFFFF, bits >> 24
    return 2**256 // ((mantissa << 8 * exponent >> 24) + 1)
