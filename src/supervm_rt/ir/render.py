"""IR as JSON: the published shapes BlockIR and TxIR, with more fields in the same style (camelCase).

Ids and bytes are hexadecimal text in display order, amounts are decimal text in the smallest unit, times are seconds since the
epoch. Every function returns what ``json.dumps`` takes as it is.
"""

from __future__ import annotations

from supervm_rt.ir.addresses import address_of
from supervm_rt.ir.scripts import script_type
from supervm_rt.model.ir import BlockIR, TransactionInput, TransactionIR, TransactionOutput


def block_json(block: BlockIR, *, chain: str, height: int) -> dict[str, object]:
    """A block, by the ids of its transactions.

    The shape BlockIR, ``transactions``, and each header field of the family by its name (Bitcoin: version, merkleRoot, bits as
    eight hexadecimal digits, nonce, size, strippedSize, weight).
    """
    out: dict[str, object] = {
        "chainId": chain,
        "height": height,
        "blockHash": block.hash.hex(),
        "parentHash": block.parent.hex(),
        "timestamp": block.time,
        "txCount": len(block.transactions),
    }
    for name, value in block.header.items():
        out[_camel_case(name)] = value.hex() if isinstance(value, bytes) else f"{value:08x}" if name == "bits" else value
    out["transactions"] = [transaction.id.hex() for transaction in block.transactions]
    return out


def transaction_json(
    transaction: TransactionIR,
    *,
    chain: str,
    network: str,
    timestamp: int,
    block_hash: bytes | None = None,
    height: int | None = None,
    fee: int | None = None,
) -> dict[str, object]:
    """A transaction of a block of this time; where they are given also the block's hash and height, and the fee.

    The shape TxIR. ``inputs`` are outpoints "txid:vout", and ``inputDetails`` the same inputs in full. A coinbase spends
    nothing: its ``inputs`` are empty, ``coinbase`` is true, and its script stands as ``coinbase`` in the one entry of
    ``inputDetails``. An output whose script has no address has the empty address. ``value`` is the sum of the outputs.

    Raises ConfigurationError for an unknown network.
    """
    spent = () if transaction.coinbase else transaction.inputs
    out: dict[str, object] = {
        "chainId": chain,
        "txHash": transaction.id.hex(),
        "timestamp": timestamp,
        "type": str(transaction.kind),
        "from": None,
        "to": None,
        "contract": None,
        "value": str(sum(output.amount for output in transaction.outputs)),
        "inputs": [f"{input_.previous_id.hex()}:{input_.previous_index}" for input_ in spent],
        "outputs": [_output_json(output, network) for output in transaction.outputs],
        "witnessHash": transaction.witness_id.hex(),
        "coinbase": transaction.coinbase,
        "position": transaction.position,
        "version": transaction.version,
        "lockTime": transaction.lock_time,
        "size": transaction.size,
        "virtualSize": transaction.virtual_size,
        "weight": transaction.weight,
        "inputDetails": [_input_json(input_, coinbase=transaction.coinbase) for input_ in transaction.inputs],
    }
    if block_hash is not None:
        out["blockHash"] = block_hash.hex()
    if height is not None:
        out["height"] = height
    if fee is not None:
        out["fee"] = str(fee)
    return out


def _input_json(spent: TransactionInput, *, coinbase: bool) -> dict[str, object]:
    if coinbase:
        out: dict[str, object] = {"coinbase": spent.script.hex()}
    else:
        out = {"txHash": spent.previous_id.hex(), "index": spent.previous_index, "script": spent.script.hex()}
    return out | {"sequence": spent.sequence, "witness": [item.hex() for item in spent.witness]}


def _output_json(output: TransactionOutput, network: str) -> dict[str, object]:
    return {
        "address": address_of(output.script, network) or "",
        "amount": str(output.amount),
        "script": output.script.hex(),
        "scriptType": str(script_type(output.script)),
    }


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
