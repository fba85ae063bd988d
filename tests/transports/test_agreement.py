"""The same blocks come to the same mirror, whichever way the plugin comes (clause G2)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from supervm_rt import Store
from supervm_rt.cli.demo import SAMPLE_CHAIN
from tests.data import needs_data
from tests.ir.blocks import GENESIS_HASH, Block, coinbase, sha256d
from tests.transports.kinds import KINDS, mirrored, write_blocks
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
