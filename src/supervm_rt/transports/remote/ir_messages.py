"""The IR of a block as the message BlockIR of ``proto/ir.proto``."""

from __future__ import annotations

from typing import Any, cast

from supervm_rt.ir.addresses import address_of
from supervm_rt.model.ir import BlockIR, TransactionInput, TransactionIR, TransactionKind, TransactionOutput
from supervm_rt.transports.remote.messages_generated.supervm import ir as proto

_KINDS = {
    TransactionKind.NATIVE: proto.TransactionKind.NATIVE,
    TransactionKind.ERC20: proto.TransactionKind.ERC20,
    TransactionKind.UTXO: proto.TransactionKind.UTXO,
}


def block_message(block: BlockIR, *, chain: str, height: int, network: str) -> bytes:
    """A block with all its transactions, encoded. ``network``: the chain's, which its addresses are written for.

    Takes long for a large block: not for a loop's own thread. Raises ConfigurationError for an unknown network.
    """
    return bytes(
        proto.BlockIr(
            chain=chain,
            family=block.family,
            height=height,
            hash=block.hash,
            parent=block.parent,
            timestamp=block.time,
            transaction_count=len(block.transactions),
            transactions=[_transaction(transaction, network) for transaction in block.transactions],
            bitcoin=proto.BitcoinHeader(**cast("dict[str, Any]", block.header)) if block.family == "bitcoin" else None,
        )
    )


def _transaction(transaction: TransactionIR, network: str) -> proto.TransactionIr:
    return proto.TransactionIr(
        hash=transaction.id,
        witness_hash=b"" if transaction.witness_id == transaction.id else transaction.witness_id,
        position=transaction.position,
        kind=_KINDS[transaction.kind],
        version=transaction.version,
        lock_time=transaction.lock_time,
        size=transaction.size,
        weight=transaction.weight,
        offset=transaction.offset,
        coinbase=transaction.coinbase,
        inputs=[_input(spent) for spent in transaction.inputs],
        outputs=[_output(output, network) for output in transaction.outputs],
    )


def _input(spent: TransactionInput) -> proto.InputIr:
    return proto.InputIr(
        previous_hash=spent.previous_id,
        previous_index=spent.previous_index,
        sequence=spent.sequence,
        script=spent.script,
        witness=list(spent.witness),
    )


def _output(output: TransactionOutput, network: str) -> proto.OutputIr:
    return proto.OutputIr(amount=str(output.amount), script=output.script, address=address_of(output.script, network) or "")
