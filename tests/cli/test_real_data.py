"""The command line over real blocks and real reorgs (clauses IR1, L3)."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from tests.cli.support import ROOT, mirror_arguments, supervm
from tests.data import needs_data
from tests.vectors import ethereum, regtest

BITCOIN = ROOT.parent / "shared/data/bitcoin"
MAINNET_MAGIC = bytes.fromhex("f9beb4d9")
REGTEST_MAGIC = bytes.fromhex("fabfb5da")


def blocks_folder(folder: Path, *files: bytes) -> Path:
    """A folder as a node has it."""
    blocks = folder / "blocks"
    blocks.mkdir()
    for number, content in enumerate(files):
        (blocks / f"blk{number:05}.dat").write_bytes(content)
    return blocks


def framed(magic: bytes, *blocks: bytes) -> bytes:
    return b"".join(magic + len(block).to_bytes(4, "little") + block for block in blocks)


@needs_data
def test_the_first_255_blocks_of_the_main_network(tmp_path: Path) -> None:
    content = bz2.decompress((BITCOIN / "blocks1-256.bz2").read_bytes())
    ran = supervm(*mirror_arguments(tmp_path / "store.db", blocks_folder(tmp_path, content), "main"), "--until-idle", "--json")
    assert ran.status == 0, ran.err
    summary = ran.json()
    assert summary["tip"]["height"] == 255
    assert summary["tip"]["hash"].startswith("00000000d0a75c86")
    assert summary["tip"]["hash"].endswith("fe3c")
    assert (summary["blocks"], summary["reorgs"], summary["rejected"]) == (255, 0, [])
    genesis = supervm("chain", "block", "bitcoin", 0, "--store", tmp_path / "store.db", "--json").json()
    assert genesis["blockHash"] == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"


@needs_data
@pytest.mark.parametrize(
    ("name", "height"),
    [("277647.dat.bz2", 277647), ("bcoin-block300025.raw", 300025), ("bitcoinj-block363703.dat", 363703)],
)
def test_a_first_block_stands_at_the_height_that_it_commits_to(tmp_path: Path, name: str, height: int) -> None:
    content = (BITCOIN / name).read_bytes()
    content = bz2.decompress(content) if name.endswith(".bz2") else framed(MAINNET_MAGIC, content)
    ran = supervm(*mirror_arguments(tmp_path / "store.db", blocks_folder(tmp_path, content), "main"), "--until-idle", "--json")
    assert ran.status == 0, ran.err
    assert ran.json()["tip"]["height"] == height


@needs_data
def test_a_first_block_that_commits_to_no_height_takes_start_height(tmp_path: Path) -> None:
    blocks = blocks_folder(tmp_path, framed(MAINNET_MAGIC, (BITCOIN / "bitcoinj-block169482.dat").read_bytes()))
    without = supervm(*mirror_arguments(tmp_path / "without.db", blocks, "main"), "--until-idle", "--json")
    assert without.status == 0
    assert without.json()["tip"] is None
    assert [rejected["reason"] for rejected in without.json()["rejected"]] == ["height"]
    assert "start_height" in without.err
    given = supervm(
        *mirror_arguments(tmp_path / "given.db", blocks, "main"), "--set", "start_height=169482", "--until-idle", "--json"
    )
    assert given.status == 0, given.err
    assert given.json()["tip"]["height"] == 169482


@needs_data
@pytest.mark.parametrize("number", range(regtest.SCENARIOS))
def test_a_scenario_of_a_real_node_as_a_block_file(tmp_path: Path, number: int) -> None:
    document = json.loads(regtest.DATA.read_text())
    scenario = document["scenarios"][number]
    raw = {block["hash"]: bytes.fromhex(block["raw"]) for block in scenario["blocks"]}
    base = [bytes.fromhex(block["raw"]) for block in document["base"]]
    content = framed(REGTEST_MAGIC, *base, *(raw[step["submit"]] for step in scenario["steps"]))
    store = tmp_path / "store.db"
    ran = supervm(*mirror_arguments(store, blocks_folder(tmp_path, content), "regtest"), "--until-idle", "--json")
    assert ran.status == 0, ran.err
    summary = ran.json()
    last = scenario["steps"][-1]
    # The node drops a block whose parent it does not know, the mirror keeps it: on a tie they may see another one first.
    dropped = any(step["result"] == "prev-blk-not-found" for step in scenario["steps"])
    assert summary["tip"]["height"] == last["height"]
    assert dropped or summary["tip"]["hash"] == last["tip"]
    refused = {
        (step["submit"], step["result"]) for step in scenario["steps"] if step["result"] in {"high-hash", "bad-txnmrklroot"}
    }
    assert {(rejected["hash"], rejected["reason"]) for rejected in summary["rejected"]} == refused
    if summary["tip"]["hash"] != last["tip"]:
        found = supervm("chain", "block", "bitcoin", last["tip"], "--store", store, "--json").json()
        assert (found["height"], found["state"]) == (last["height"], "side"), "a tip of the same work"


@needs_data
@pytest.mark.parametrize("number", range(0, regtest.SCENARIOS, 4))
def test_a_scenario_of_a_real_node_as_fork_vectors(tmp_path: Path, number: int) -> None:
    scenario = regtest.scenario(number)
    file = tmp_path / "scenario.jsonl"
    file.write_text("\n".join(scenario.lines))
    ran = supervm("forks", "replay", file, "--json")
    assert ran.status == 0, ran.err
    assert ran.lines() == scenario.answers


@needs_data
def test_the_ethereum_cases_as_fork_vectors(tmp_path: Path) -> None:
    for number in range(0, 30, 10):
        case = ethereum.case(number)
        file = tmp_path / f"{number}.jsonl"
        file.write_text("\n".join(case.lines))
        assert supervm("forks", "replay", file, "--json").json()["tip"]["hash"] == case.last_block_hash
