"""Real blocks, against python-bitcoinlib's reading of the same bytes and a real node's verdicts."""

from __future__ import annotations

import bz2
import itertools
import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from bitcoin.core import CBlock

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.render import block_json, transaction_json
from supervm_rt.ir.translator import BlockRefused, RawBlock, TranslatedBlock
from supervm_rt.model.ir import TransactionInput
from tests.data import needs_data
from tests.ir import shapes

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "bitcoin"

pytestmark = needs_data

SINGLE = {
    "bcoin-block300025.raw": ("main", 300_025),
    "bitcoinj-block169482.dat": ("main", None),
    "bitcoinj-block227835.dat": ("main", None),
    "bitcoinj-block227836.dat": ("main", 227_836),
    "bitcoinj-block363703.dat": ("main", 363_703),
    "bitcoinj-block370661.dat": ("main", 370_661),
    "bitcoinj-block_testnet21066.dat": ("testnet3", 21_066),
    "bitcoinj-block_testnet32768.dat": ("testnet3", 32_768),
    "bitcoinj-block_testnet700000.dat": ("testnet3", 700_000),
    "rb-test.raw": ("testnet3", 924_634),
}
FRAMED = ("277647.dat.bz2", "blocks1-256.bz2", "blk_0_to_4.dat.bz2", "blk_3A.dat.bz2", "blk_4A.dat.bz2", "blk_5A.dat.bz2")


def framed(name: str) -> Iterator[bytes]:
    data = bz2.decompress((DATA / name).read_bytes())
    at = 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        yield data[at + 8 : at + 8 + length]
        at += 8 + length


def agrees(raw: bytes, network: str, height: int) -> TranslatedBlock:
    """Translates, and compares every value with python-bitcoinlib's."""
    translated = BitcoinTranslator(network).translate(RawBlock(raw))
    theirs: Any = CBlock.deserialize(raw)
    block = decode_block(translated.ir)
    assert (block.hash, block.parent) == (theirs.GetHash()[::-1], theirs.hashPrevBlock[::-1])
    assert (translated.hash, translated.parent, translated.time) == (block.hash, block.parent, block.time)
    assert block.time == theirs.nTime
    assert block.header == {
        "version": theirs.nVersion,
        "merkle_root": theirs.hashMerkleRoot[::-1],
        "bits": theirs.nBits,
        "nonce": theirs.nNonce,
        "size": len(raw),
        "stripped_size": len(theirs.serialize({"include_witness": False})),
        "weight": theirs.GetWeight(),
    }
    assert translated.transaction_ids == b"".join(transaction.GetTxid()[::-1] for transaction in theirs.vtx)
    for ours, transaction in zip(block.transactions, theirs.vtx, strict=True):
        assert (ours.id, ours.witness_id) == (transaction.GetTxid()[::-1], transaction.GetHash()[::-1])
        assert (ours.version, ours.lock_time) == (transaction.nVersion & 0xFFFFFFFF, transaction.nLockTime)
        assert (ours.size, ours.weight) == (len(transaction.serialize()), transaction.calc_weight())
        assert ours.coinbase == transaction.is_coinbase()
        stacks = [tuple(item.scriptWitness.stack) for item in transaction.wit.vtxinwit] or [()] * len(transaction.vin)
        assert list(ours.inputs) == [
            TransactionInput(spent.prevout.hash[::-1], spent.prevout.n, spent.nSequence, bytes(spent.scriptSig), stack)
            for spent, stack in zip(transaction.vin, stacks, strict=True)
        ]
        assert [(paid.amount, paid.script) for paid in ours.outputs] == [
            (paid.nValue, bytes(paid.scriptPubKey)) for paid in transaction.vout
        ]
        out = transaction_json(ours, chain="bitcoin", network=network, timestamp=block.time)
        transaction_shape().validate(out)
    jsonschema.validate(block_json(block, chain="bitcoin", height=height), shapes.BLOCK)
    return translated


@cache
def transaction_shape() -> Any:
    return jsonschema.Draft7Validator(shapes.TRANSACTION)


@pytest.mark.parametrize("name", SINGLE)
def test_single_block(name: str) -> None:
    network, height = SINGLE[name]
    translated = agrees((DATA / name).read_bytes(), network, height or 0)
    assert translated.root_height == height
    told = "".join(filter(str.isdigit, name.removeprefix("bcoin-block").split("-")[-1].split(".")[0]))
    assert height is None or not told or height == int(told)


@pytest.mark.parametrize("name", FRAMED)
def test_framed_blocks(name: str) -> None:
    translated = [agrees(raw, "main", height) for height, raw in enumerate(framed(name), start=1)]
    if name.startswith("blk"):
        return
    for parent, child in itertools.pairwise(translated):
        assert child.parent == parent.hash
    if name.startswith("blocks"):
        assert len(translated) == 255
        assert translated[0].parent == BitcoinTranslator("main").genesis_hash
        assert translated[-1].hash.hex() == "00000000d0a75c861fabf9ff7b92022f60e4afeed9331fe5aa073d8e4706fe3c"
        assert {block.weight for block in translated} == {0x100010001}
    else:
        assert [block.root_height for block in translated] == [277_647]


def test_every_truncation_of_a_real_block_is_malformed() -> None:
    raw = (DATA / "bitcoinj-block_testnet32768.dat").read_bytes()
    for length in range(len(raw)):
        with pytest.raises(BlockRefused, match=r"^malformed"):
            BitcoinTranslator("testnet3").translate(RawBlock(raw[:length]))


def test_a_nodes_verdicts_on_regtest() -> None:
    told = json.loads((DATA / "regtest_forks_A.json").read_text())
    translator = BitcoinTranslator("regtest")
    heights = {}
    for height, block in enumerate(told["base"], start=1):
        translated = agrees(bytes.fromhex(block["raw"]), "regtest", height)
        assert (translated.hash.hex(), translated.root_height, translated.weight) == (block["hash"], height, 2)
        heights[block["hash"]] = height
    refused: dict[tuple[str, str], int] = {}
    for scenario in told["scenarios"]:
        blocks = {block["hash"]: bytes.fromhex(block["raw"]) for block in scenario["blocks"]}
        for step in scenario["steps"]:
            raw = blocks[step["submit"]]
            if step["result"] in {"high-hash", "bad-txnmrklroot"}:
                with pytest.raises(BlockRefused) as caught:
                    translator.translate(RawBlock(raw))
                assert caught.value.reason == step["result"]
                assert caught.value.hash is not None
                assert caught.value.hash.hex() == step["submit"]
                refused[step["kind"], step["result"]] = refused.get((step["kind"], step["result"]), 0) + 1
            else:
                assert translator.translate(RawBlock(raw)).hash.hex() == step["submit"]
        for raw in blocks.values():
            if translates(translator, raw):
                agrees(raw, "regtest", 0)
    assert refused == {
        ("bad-merkle", "bad-txnmrklroot"): 5,
        ("dup", "bad-txnmrklroot"): 1,
        ("bad-highhash", "high-hash"): 6,
        ("bad-badbits", "high-hash"): 3,
    }


def translates(translator: BitcoinTranslator, raw: bytes) -> bool:
    try:
        translator.translate(RawBlock(raw))
    except BlockRefused:
        return False
    return True
