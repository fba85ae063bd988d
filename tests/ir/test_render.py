"""IR as JSON: the published shapes, and what we add to them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from supervm_rt.errors import ConfigurationError
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.render import block_json, transaction_json
from supervm_rt.ir.translator import RawBlock
from tests.ir import shapes
from tests.ir.blocks import GENESIS_HASH, RESERVED, witness_block

BLOCK = decode_block(BitcoinTranslator("regtest").translate(RawBlock(witness_block().raw())).ir)


def test_block() -> None:
    out = block_json(BLOCK, chain="bitcoin", height=300)
    jsonschema.validate(out, shapes.BLOCK)
    assert json.loads(json.dumps(out)) == out
    merkle_root = BLOCK.header["merkle_root"]
    assert isinstance(merkle_root, bytes)
    assert out == {
        "chainId": "bitcoin",
        "height": 300,
        "blockHash": BLOCK.hash.hex(),
        "parentHash": GENESIS_HASH.hex(),
        "timestamp": 1_700_000_000,
        "txCount": 5,
        "version": 0x20000000,
        "merkleRoot": merkle_root.hex(),
        "bits": "207fffff",
        "nonce": BLOCK.header["nonce"],
        "size": BLOCK.header["size"],
        "strippedSize": BLOCK.header["stripped_size"],
        "weight": BLOCK.header["weight"],
        "transactions": [transaction.id.hex() for transaction in BLOCK.transactions],
    }


def test_dev_block() -> None:
    ir = DevTranslator().translate(RawBlock(b"payload", hash_=b"\1", parent=b"\2", time=5_000_000_001)).ir
    out = block_json(decode_block(ir), chain="mine", height=4)
    jsonschema.validate(out, shapes.BLOCK)
    assert (out["blockHash"], out["parentHash"], out["timestamp"], out["txCount"], out["size"]) == ("01", "02", 5, 0, 7)


@pytest.mark.parametrize("position", range(5))
def test_transaction(position: int) -> None:
    transaction = BLOCK.transactions[position]
    out = transaction_json(transaction, chain="bitcoin", network="regtest", timestamp=BLOCK.time)
    jsonschema.validate(out, shapes.TRANSACTION)
    assert json.loads(json.dumps(out)) == out
    assert (out["txHash"], out["witnessHash"]) == (transaction.id.hex(), transaction.witness_id.hex())
    assert (out["from"], out["to"], out["contract"], out["type"]) == (None, None, None, "UTXO")
    assert out["value"] == str(sum(output.amount for output in transaction.outputs))
    assert not {"fee", "blockHash", "height"} & out.keys()


def test_coinbase_spends_nothing() -> None:
    out = transaction_json(BLOCK.transactions[0], chain="bitcoin", network="regtest", timestamp=BLOCK.time)
    assert (out["coinbase"], out["inputs"]) == (True, [])
    assert out["inputDetails"] == [{"coinbase": "022c01", "sequence": 0xFFFFFFFF, "witness": [RESERVED.hex()]}]
    commitment = BLOCK.transactions[0].outputs[1].script.hex()
    assert out["outputs"] == [
        {"address": "", "amount": "5000000000", "script": "51", "scriptType": "nonstandard"},
        {"address": "", "amount": "0", "script": commitment, "scriptType": "nulldata"},
    ]


def test_inputs_stand_as_outpoints_and_in_full() -> None:
    transaction = BLOCK.transactions[4]
    out = transaction_json(transaction, chain="bitcoin", network="regtest", timestamp=BLOCK.time)
    assert out["coinbase"] is False
    assert out["inputs"] == [f"{spent.previous_id.hex()}:{place}" for place, spent in enumerate(transaction.inputs)]
    assert out["inputDetails"] == [
        {"txHash": spent.previous_id.hex(), "index": place, "script": "0151", "sequence": 5, "witness": [b"one".hex()]}
        for place, spent in enumerate(transaction.inputs)
    ]


def test_what_only_the_caller_knows_is_added_where_it_is_given() -> None:
    out = transaction_json(
        BLOCK.transactions[1], chain="bitcoin", network="regtest", timestamp=BLOCK.time, block_hash=BLOCK.hash, height=300, fee=0
    )
    jsonschema.validate(out, shapes.TRANSACTION)
    assert (out["blockHash"], out["height"], out["fee"]) == (BLOCK.hash.hex(), 300, "0")


def test_unknown_network() -> None:
    with pytest.raises(ConfigurationError, match="testnet4"):
        transaction_json(BLOCK.transactions[1], chain="bitcoin", network="moon", timestamp=0)
