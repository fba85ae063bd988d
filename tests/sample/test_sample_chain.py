"""The sample chain in the repository is what its README says, read by code that shares nothing with the mirror."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.sample.block_reader import ReadBlock, block_files, block_hash, parse_block, read_folder

SAMPLE = Path(__file__).parents[2] / "src" / "supervm_rt" / "demo" / "sample-chain"
REGTEST_MAGIC = bytes.fromhex("fabfb5da")
STANDARD_TYPES = {
    "anchor",
    "multisig",
    "nulldata",
    "pubkey",
    "pubkeyhash",
    "scripthash",
    "witness_unknown",
    "witness_v0_keyhash",
    "witness_v0_scripthash",
    "witness_v1_taproot",
}


@pytest.fixture(scope="module")
def blocks() -> list[ReadBlock]:
    return [parse_block(raw) for raw in read_folder(SAMPLE / "blocks", REGTEST_MAGIC)]


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SAMPLE / "answers.json").read_text())
    return loaded


def script_type(script: bytes) -> str:
    """The node's name of a script's type, by the shape of the scripts that the sample holds."""
    if script[:1] == b"\x6a":
        return "nulldata"
    if script == bytes.fromhex("51024e73"):
        return "anchor"
    if script[-1:] == b"\xac" and len(script) in {35, 67}:
        return "pubkey"
    if script[-1:] == b"\xae":
        return "multisig"
    shapes = {
        (25, b"\x76\xa9\x14"): "pubkeyhash",
        (23, b"\xa9\x14"): "scripthash",
        (22, b"\x00\x14"): "witness_v0_keyhash",
        (34, b"\x00\x20"): "witness_v0_scripthash",
        (34, b"\x51\x20"): "witness_v1_taproot",
        (34, b"\x52\x20"): "witness_unknown",
    }
    return next(
        (name for (size, start), name in shapes.items() if len(script) == size and script.startswith(start)), "nonstandard"
    )


def test_is_small_and_whole() -> None:
    size = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert size < 1_000_000
    assert {path.name for path in SAMPLE.iterdir()} == {"README.md", "answers.json", "blocks"}


def test_files_are_as_a_node_writes_them() -> None:
    files = block_files(SAMPLE / "blocks")
    assert [path.name for path in files] == [f"blk{number:05}.dat" for number in range(len(files))]
    assert len(files) > 1
    key = (SAMPLE / "blocks" / "xor.dat").read_bytes()
    assert len(key) == 8
    assert any(key)
    assert files[0].read_bytes()[:4] == bytes(plain ^ pad for plain, pad in zip(REGTEST_MAGIC, key[:4], strict=True))
    assert files[-1].read_bytes().endswith(bytes(4096)), "the preallocated zeros at the end are kept, to one page"


def test_blocks_are_those_the_node_answered_for(blocks: list[ReadBlock], answers: dict[str, Any]) -> None:
    assert len(blocks) >= 300
    assert [block.hash for block in blocks[1:]] == [step["hash"] for step in answers["steps"]], "genesis, then all as they came"
    by_hash = {block.hash: block for block in blocks}
    assert len(by_hash) == len(blocks)
    chain = answers["chain"]
    assert [entry["height"] for entry in chain] == list(range(len(chain)))
    for below, entry in itertools.pairwise(chain):
        assert by_hash[entry["hash"]].parent == below["hash"]
        assert len(by_hash[entry["hash"]].transactions) == entry["nTx"]
    assert answers["getblockchaininfo"]["bestblockhash"] == chain[-1]["hash"] == answers["steps"][-1]["tip"]


def test_blocks_given_in_full_are_the_same_bytes(answers: dict[str, Any]) -> None:
    by_hash = {block_hash(raw): raw for raw in read_folder(SAMPLE / "blocks", REGTEST_MAGIC)}
    checked = 0
    for block in answers["blocks"]:
        parsed = parse_block(by_hash[block["hash"]])
        assert block["size"] == len(by_hash[block["hash"]])
        for transaction, said in zip(parsed.transactions, block["tx"], strict=True):
            assert transaction.identity == (said["txid"] if isinstance(said, dict) else said)
            checked += 1
    assert checked > 100


def test_every_output_type_is_made_and_spent(blocks: list[ReadBlock], answers: dict[str, Any]) -> None:
    canonical = {entry["hash"] for entry in answers["chain"]}
    made: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    types: dict[str, str] = {}
    transactions = {
        transaction.identity: transaction for block in blocks if block.hash in canonical for transaction in block.transactions
    }
    for identity, transaction in transactions.items():
        for index, (_, script) in enumerate(transaction.outputs):
            types[f"{identity}:{index}"] = script_type(script)
            made[script_type(script)] += 1
    for transaction in transactions.values():
        spent.update(types[outpoint] for outpoint in transaction.spends if outpoint in types)
    assert dict(made) == answers["output_types"], "as the node counted them"
    assert set(made) == STANDARD_TYPES | {"nonstandard"}
    assert set(spent) == set(made) - {"nulldata"}
    assert len(transactions) - len(canonical) >= 300, "beside the coinbases"
    assert sum(transaction.has_witness for transaction in transactions.values()) - len(canonical) >= 100


def test_crowded_and_empty_blocks(blocks: list[ReadBlock]) -> None:
    sizes = [len(block.transactions) for block in blocks]
    assert max(sizes) > 100
    assert sizes.count(1) > 100
    assert any(len(transaction.spends) >= 40 for block in blocks for transaction in block.transactions)
    assert any(len(transaction.outputs) > 0xFC for block in blocks for transaction in block.transactions)


def test_reorgs_and_side_branches(blocks: list[ReadBlock], answers: dict[str, Any]) -> None:
    parents = {block.hash: block.parent for block in blocks}

    def line(hash_: str) -> list[str]:
        found = [hash_]
        while found[-1] in parents:
            found.append(parents[found[-1]])
        return found

    seen = []
    tips = [step["tip"] for step in answers["steps"]]
    for old, new in itertools.pairwise(tips):
        kept = set(line(new))
        lost = [hash_ for hash_ in line(old) if hash_ not in kept]
        if lost:
            seen.append((len(lost), old, new, parents[lost[-1]]))
    assert [depth for depth, *_ in seen] == [1, 3, 6]
    assert seen == [(reorg["depth"], reorg["from"], reorg["to"], reorg["ancestor"]) for reorg in answers["reorgs"]]
    lengths = sorted(tip["branchlen"] for tip in answers["getchaintips"] if tip["status"] != "active")
    assert lengths == [1, 1, 2, 3, 6], "a twin and a branch of two never won"


def test_some_blocks_come_far_before_their_parents(blocks: list[ReadBlock]) -> None:
    position = {block.hash: index for index, block in enumerate(blocks)}
    early = [
        position[block.parent] - position[block.hash] for block in blocks[1:] if position[block.parent] > position[block.hash]
    ]
    assert len(early) > 10
    assert max(early) > 20
