"""The same blocks come to the same mirror, whichever way the plugin comes (clause G2)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from fuzz.reorgs.telling import BLOCK, Statement
from supervm_rt import Store
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.sdk.messages import EARLIEST
from tests.data import needs_data
from tests.ir.blocks import GENESIS_HASH, Block, coinbase, sha256d
from tests.transports.kinds import KINDS, mirrored, told, write_blocks
from tests.vectors.regtest import DATA, SCENARIOS

Blocks = Callable[[Path], Path]
"""Writes the blocks of a case below a folder, and says where."""


def scenario(number: int) -> Blocks:
    """A scenario of the file with a real node's answers: its chain below, then its blocks in the order of its steps."""

    def write(work: Path) -> Path:
        told = json.loads(DATA.read_text())
        steps = told["scenarios"][number]
        raw = {block["hash"]: block["raw"] for block in steps["blocks"]}
        order = [block["raw"] for block in told["base"]] + [raw[step["submit"]] for step in steps["steps"]]
        return write_blocks(work / "blocks", map(bytes.fromhex, order))

    return write


def tree(seed: int) -> Blocks:
    """A random tree: many branches, some blocks before their parents, some twice, some that are none."""

    def write(work: Path) -> Path:
        random = Random(seed)
        known = [GENESIS_HASH[::-1]]
        blocks: list[bytes] = []
        for number in range(random.randint(30, 120)):
            parent = known[-1] if random.random() < 0.6 else random.choice(known[-12:])
            script = struct.pack("<BI", 4, number + 1_000 * seed)
            raw = Block((coinbase(script),), previous=parent, time=1_700_000_000 + number).raw()
            known.append(sha256d(raw[:80]))
            blocks.append(raw)
            if random.random() < 0.1:
                blocks.append(random.choice(blocks))
            if random.random() < 0.05:
                blocks.append(raw[:-1] + bytes([raw[-1] ^ 1]))
        for _ in range(len(blocks) // 5):
            place = random.randrange(1, len(blocks))
            blocks[place - 1], blocks[place] = blocks[place], blocks[place - 1]
        return write_blocks(work / "blocks", blocks)

    return write


STORY = 30
TIMES = (None, 0, 1, -1_500_000_000, 1_231_006_505_000_000_000, 1_700_000_000_999_999_999, 2**63 - 1, EARLIEST)


def story() -> list[Statement]:
    """A chain of the family dev: what such blocks are, the plugin says and the host believes. Some leave it again."""
    ids = [number.to_bytes(32, "big") for number in range(STORY + 1)]
    statements: list[Statement] = []
    for number in range(1, STORY + 1):
        position = str(number).encode()
        parent = ids[number - 3] if number % 10 == 0 else ids[number - 1]
        height = number - 2 * (number // 10)
        time = TIMES[number % len(TIMES)]
        statements.append(Statement(BLOCK, position, ids[number], parent, height, None, 1 + number % 3, time, b"block" * number))
    return statements


CASES = [
    pytest.param(lambda _: SAMPLE_CHAIN / "blocks", id="sample chain"),
    *(pytest.param(scenario(number), id=f"scenario {number}", marks=needs_data) for number in range(SCENARIOS)),
    *(pytest.param(tree(seed), id=f"tree {seed}") for seed in range(6)),
]


@pytest.mark.parametrize("blocks", CASES)
def test_every_way_leads_to_one_digest(tmp_path: Path, blocks: Blocks) -> None:
    folder = blocks(tmp_path)
    found = {}
    for kind in KINDS:
        work = tmp_path / kind.replace(" ", "-")
        work.mkdir()
        found[kind] = mirrored(kind, work / "store.db", folder)
        with Store.open(work / "store.db", read_only=True) as store:
            info = store.chain("bitcoin").info()
            assert info.tip is not None
            assert info.tip.height > 0
    assert len(set(found.values())) == 1, found


def test_what_plugins_say_of_blocks_leads_to_one_digest(tmp_path: Path) -> None:
    """Hash, parent, height, weight and time, where the bytes do not tell them: alike from a library and from the Python kit."""
    statements = story()
    found = {}
    times: dict[str, list[int]] = {}
    for kind in KINDS:
        work = tmp_path / kind.replace(" ", "-")
        work.mkdir()
        found[kind] = told(kind, work / "store.db", statements)
        with Store.open(work / "store.db", read_only=True) as store:
            blocks = [store.chain("dev").block_by_hash(each.hash) for each in statements]
            times[kind] = [block.time for block in blocks if block is not None]
    assert len(set(found.values())) == 1, found
    expected = [0 if each.time is None else each.time // 1_000_000_000 for each in statements]
    assert times == dict.fromkeys(KINDS, expected)
