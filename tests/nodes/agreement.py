"""Our values of a block beside a node's, under the node's names, so that two dictionaries can be compared."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from supervm_rt.ir.addresses import address_of
from supervm_rt.ir.render import block_json, transaction_json
from supervm_rt.ir.scripts import script_type
from supervm_rt.model.ir import BlockIR, TransactionIR

Json = dict[str, Any]


def satoshis(amount: Decimal) -> int:
    """A node's amount, in the smallest unit."""
    return int(amount * 100_000_000)


def assert_transaction_agrees(transaction: TransactionIR, network: str, said: Json) -> None:
    """The IR's values and the JSON that users get say what ``getblock`` or ``decoderawtransaction`` says."""
    view = _node_transaction(said)
    assert _our_transaction(transaction, network) == view
    fee = satoshis(said["fee"]) if "fee" in said else None
    rendered: Json = transaction_json(transaction, chain="bitcoin", network=network, timestamp=1_234, fee=fee)
    assert _rendered_transaction(rendered) == view
    assert (rendered["chainId"], rendered["type"], rendered["timestamp"]) == ("bitcoin", "UTXO", 1_234)
    assert rendered["coinbase"] == ("coinbase" in said["vin"][0])
    assert rendered["inputs"] == [entry["spends"] for entry in view["vin"] if entry["spends"]]
    assert rendered.get("fee") == (None if fee is None else str(fee))
    assert rendered["value"] == str(sum(entry["amount"] for entry in view["vout"]))


def assert_block_agrees(block: BlockIR, height: int, said: Json) -> None:
    """The IR's values of a block and its JSON say what ``getblock`` says, beside its transactions' contents."""
    names = ("hash", "height", "version", "merkleroot", "time", "nonce", "bits", "nTx", "size", "strippedsize", "weight")
    view = {name: said[name] for name in names} | {"previousblockhash": said.get("previousblockhash", "00" * 32)}
    rendered: Json = block_json(block, chain="bitcoin", height=height)
    assert {
        "hash": rendered["blockHash"],
        "previousblockhash": rendered["parentHash"],
        "height": rendered["height"],
        "time": rendered["timestamp"],
        "nTx": rendered["txCount"],
        "version": rendered["version"],
        "merkleroot": rendered["merkleRoot"],
        "bits": rendered["bits"],
        "nonce": rendered["nonce"],
        "size": rendered["size"],
        "strippedsize": rendered["strippedSize"],
        "weight": rendered["weight"],
    } == view
    assert rendered["transactions"] == [transaction["txid"] for transaction in said["tx"]]
    values = (block.hash.hex(), block.parent.hex(), block.time, len(block.transactions))
    assert values == (view["hash"], view["previousblockhash"], view["time"], view["nTx"])


def _node_transaction(said: Json) -> Json:
    """What the node says, without what stands there twice."""
    view = {name: said[name] for name in ("txid", "hash", "version", "size", "vsize", "weight", "locktime")}
    view["vin"] = [
        {
            "spends": None if "coinbase" in entry else f"{entry['txid']}:{entry['vout']}",
            "script": entry["coinbase"] if "coinbase" in entry else entry["scriptSig"]["hex"],
            "sequence": entry["sequence"],
            "witness": entry.get("txinwitness", []),
        }
        for entry in said["vin"]
    ]
    view["vout"] = [
        {
            "amount": satoshis(entry["value"]),
            "script": entry["scriptPubKey"]["hex"],
            "type": entry["scriptPubKey"]["type"],
            "address": entry["scriptPubKey"].get("address"),
        }
        for entry in said["vout"]
    ]
    return view


def _our_transaction(transaction: TransactionIR, network: str) -> Json:
    return {
        "txid": transaction.id.hex(),
        "hash": transaction.witness_id.hex(),
        "version": transaction.version,
        "size": transaction.size,
        "vsize": transaction.virtual_size,
        "weight": transaction.weight,
        "locktime": transaction.lock_time,
        "vin": [
            {
                "spends": None if entry.coinbase else f"{entry.previous_id.hex()}:{entry.previous_index}",
                "script": entry.script.hex(),
                "sequence": entry.sequence,
                "witness": [item.hex() for item in entry.witness],
            }
            for entry in transaction.inputs
        ],
        "vout": [
            {
                "amount": entry.amount,
                "script": entry.script.hex(),
                "type": script_type(entry.script),
                "address": address_of(entry.script, network),
            }
            for entry in transaction.outputs
        ],
    }


def _rendered_transaction(rendered: Json) -> Json:
    return {
        "txid": rendered["txHash"],
        "hash": rendered["witnessHash"],
        "version": rendered["version"],
        "size": rendered["size"],
        "vsize": rendered["virtualSize"],
        "weight": rendered["weight"],
        "locktime": rendered["lockTime"],
        "vin": [
            {
                "spends": None if "coinbase" in entry else f"{entry['txHash']}:{entry['index']}",
                "script": entry["coinbase"] if "coinbase" in entry else entry["script"],
                "sequence": entry["sequence"],
                "witness": entry["witness"],
            }
            for entry in rendered["inputDetails"]
        ],
        "vout": [
            {
                "amount": int(entry["amount"]),
                "script": entry["script"],
                "type": entry["scriptType"],
                "address": entry["address"] or None,
            }
            for entry in rendered["outputs"]
        ],
    }
