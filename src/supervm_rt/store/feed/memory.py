"""How much memory the blocks of a page take, so that a page has a bound."""

from __future__ import annotations

from sys import getsizeof
from typing import Final

from supervm_rt.model.ir import TransactionIR
from supervm_rt.store.feed.events import Body

_DECODED: Final = 16 << 10
"""Bytes, at most, of a decoded block beside its encoded form, in which its values stay until they are asked for."""
_NUMBER: Final = 32
"""Bytes of a whole number."""


def memory_of(body: Body) -> int:
    """Bytes, or a little more. Takes time for each value of the transactions that a filter has found."""
    size = getsizeof(body)
    if body.raw is not None:
        size += getsizeof(body.raw)
    if body.encoded is not None:
        size += getsizeof(body.encoded) + _DECODED
    if body.transactions is not None:
        size += getsizeof(body.transactions) + sum(map(_transaction, body.transactions))
    return size


def _transaction(transaction: TransactionIR) -> int:
    size = getsizeof(transaction) + 6 * _NUMBER + getsizeof(transaction.id) + getsizeof(transaction.witness_id)
    size += getsizeof(transaction.inputs) + getsizeof(transaction.outputs)
    for input_ in transaction.inputs:
        size += getsizeof(input_) + 2 * _NUMBER + getsizeof(input_.previous_id) + getsizeof(input_.script)
        size += getsizeof(input_.witness) + sum(map(getsizeof, input_.witness))
    for output in transaction.outputs:
        size += getsizeof(output) + _NUMBER + getsizeof(output.script)
    return size
