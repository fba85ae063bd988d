"""Every value that we take from a block is the one that a real bitcoind takes from the same bytes."""

from __future__ import annotations

import bz2
import json
import shutil
import time
from pathlib import Path

import pytest

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.translator import TranslatedBlock
from supervm_rt.model.ir import BlockIR
from tests.data import ABSENT
from tests.nodes.agreement import assert_block_agrees, assert_transaction_agrees, satoshis
from tests.nodes.bitcoind import Bitcoind
from tests.nodes.claims import Claims
from tests.sample.block_reader import block_hash, parse_block, read_folder, read_records

pytestmark = pytest.mark.nodes

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "src" / "supervm_rt" / "demo" / "sample-chain"
DATA = ROOT.parent / "shared" / "data" / "bitcoin"
MAGIC = {"main": bytes.fromhex("f9beb4d9"), "regtest": bytes.fromhex("fabfb5da")}
IMPORT_DEADLINE = 60.0

MAINNET = (
    "277647.dat.bz2",
    "bcoin-block300025.raw",
    "bitcoinj-block169482.dat",
    "bitcoinj-block227835.dat",
    "bitcoinj-block227836.dat",
    "bitcoinj-block363703.dat",
    "bitcoinj-block370661.dat",
)
TESTNET = (
    "bitcoinj-block_testnet21066.dat",
    "bitcoinj-block_testnet32768.dat",
    "bitcoinj-block_testnet700000.dat",
    "rb-test.raw",
)


def public_data(name: str) -> bytes:
    """A file of real blocks, unpacked."""
    path = DATA / name
    if not path.exists():
        pytest.skip(ABSENT)
    content = path.read_bytes()
    return bz2.decompress(content) if path.suffix == ".bz2" else content


def public_block(name: str) -> bytes:
    content = public_data(name)
    return next(read_records(content, MAGIC["main"])) if content.startswith(MAGIC["main"]) else content


def translated(network: str, raw: bytes) -> tuple[TranslatedBlock, BlockIR]:
    result = BitcoinTranslator(network).translate(Claims(raw))
    block = decode_block(result.ir)
    assert (result.hash, result.parent, result.time) == (block.hash, block.parent, block.time)
    assert result.transaction_ids == b"".join(transaction.id for transaction in block.transactions)
    return result, block


def assert_transactions_agree(node: Bitcoind, network: str, raw: bytes, block: BlockIR) -> None:
    """Each transaction, cut out of the block by another reader, decoded by the node; and what follows for the block's weight."""
    parsed = parse_block(raw)
    weight = 4 * (len(raw) - sum(len(transaction.raw) for transaction in parsed.transactions))
    for ours, theirs in zip(block.transactions, parsed.transactions, strict=True):
        said = node.rpc("decoderawtransaction", theirs.raw.hex(), theirs.has_witness)
        assert_transaction_agrees(ours, network, said)
        assert raw[ours.offset : ours.offset + ours.size] == theirs.raw
        weight += said["weight"]
    assert block.header["weight"] == weight
    assert block.header["size"] == len(raw)
    assert block.header["stripped_size"] == (weight - len(raw)) // 3


def assert_header_agrees(node: Bitcoind, raw: bytes, block: BlockIR) -> None:
    """The node checks all that can be checked without the parent, misses the parent, and logs the two hashes as it read them.

    The hash confirms all of the header's bytes; the fields in them no node would tell of a block that it does not have.
    """
    assert node.rpc("submitblock", raw.hex()) == "prev-blk-not-found"
    log = (node.blocks_folder.parent / "debug.log").read_text()
    assert f"header {block.hash.hex()} has prev block not found: {block.parent.hex()}" in log
    assert block.header["version"] == int.from_bytes(raw[:4], "little", signed=True)
    assert block.header["merkle_root"] == raw[36:68][::-1]
    assert block.time == int.from_bytes(raw[68:72], "little")
    assert block.header["bits"] == int.from_bytes(raw[72:76], "little")
    assert block.header["nonce"] == int.from_bytes(raw[76:80], "little")


@pytest.mark.parametrize(("network", "names"), [("main", MAINNET), ("testnet3", TESTNET)])
def test_real_blocks_without_their_chain(bitcoind_folder: Path, network: str, names: tuple[str, ...]) -> None:
    blocks = {name: public_block(name) for name in names}
    with Bitcoind(bitcoind_folder, network=network, arguments=["-debug=validation"]) as node:
        for raw in blocks.values():
            _, block = translated(network, raw)
            assert_header_agrees(node, raw, block)
            assert_transactions_agree(node, network, raw, block)


def test_first_mainnet_blocks_with_their_chain(bitcoind_folder: Path) -> None:
    blocks = list(read_records(public_data("blocks1-256.bz2"), MAGIC["main"]))
    assert len(blocks) == 255
    with Bitcoind(bitcoind_folder, network="main") as node:
        genesis = BitcoinTranslator("main").genesis
        assert genesis is not None
        assert node.rpc("getblock", node.hash_at(0), 0) == genesis.hex()
        work = 0
        for height, raw in enumerate([genesis, *blocks]):
            if height:
                assert node.rpc("submitblock", raw.hex()) is None
            said = node.rpc("getblock", block_hash(raw), 2)
            result, block = translated("main", raw)
            work += result.weight
            assert_block_agrees(block, height, said)
            assert work == int(said["chainwork"], 16)
            for ours, theirs in zip(block.transactions, said["tx"], strict=True):
                assert_transaction_agrees(ours, "main", theirs)
        assert node.tip().hash.startswith("00000000d0a75c86")


def test_sample_chain(bitcoind_folder: Path, tmp_path: Path) -> None:
    """The node reads the very files, side branches included."""
    shutil.copytree(SAMPLE / "blocks", tmp_path / "regtest" / "blocks")
    blocks = {block_hash(raw): raw for raw in read_folder(SAMPLE / "blocks", MAGIC["regtest"])}
    answers = json.loads((SAMPLE / "answers.json").read_text())
    with Bitcoind(bitcoind_folder, data_folder=tmp_path, arguments=["-reindex=1"]) as node:
        deadline = time.monotonic() + IMPORT_DEADLINE
        while node.tip().hash != answers["getblockchaininfo"]["bestblockhash"]:
            assert time.monotonic() < deadline, f"the node stays at {node.tip()}"
            time.sleep(0.05)
        assert by_hash(node.rpc("getchaintips")) == by_hash(answers["getchaintips"])
        canonical = {entry["hash"] for entry in answers["chain"]}
        works: dict[str, int] = {"00" * 32: 0}
        amounts: dict[tuple[bytes, int], int] = {}
        for said in sorted((node.rpc("getblock", hash_, 2) for hash_ in blocks), key=lambda block: int(block["height"])):
            result, block = translated("regtest", blocks[said["hash"]])
            assert_block_agrees(block, said["height"], said)
            works[said["hash"]] = works[result.parent.hex()] + result.weight
            assert works[said["hash"]] == int(said["chainwork"], 16)
            assert result.root_height == said["height"]
            for ours, theirs in zip(block.transactions, said["tx"], strict=True):
                assert_transaction_agrees(ours, "regtest", theirs)
                amounts.update({(ours.id, index): output.amount for index, output in enumerate(ours.outputs)})
                if "fee" in theirs and said["hash"] in canonical:
                    spent = sum(amounts[entry.previous_id, entry.previous_index] for entry in ours.inputs)
                    assert spent - sum(output.amount for output in ours.outputs) == satoshis(theirs["fee"])


def by_hash(tips: list[dict[str, object]]) -> dict[object, tuple[object, object]]:
    """What the node says of its tips, beside how well it has checked those that never won."""
    return {tip["hash"]: (tip["height"], tip["branchlen"]) for tip in tips}
