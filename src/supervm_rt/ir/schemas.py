"""The columns of each family's IR, in the order in which they are stored.

Every family has the table ``block`` with one row that begins with NEUTRAL_BLOCK; behind these stand the fields that only it has.
"""

from __future__ import annotations

from supervm_rt.ir.columns import BINARY, INT32, INT64, LIST, UINT32, UINT64, ColumnType, Schema, fixed

ID = fixed(32)
"""A 32-byte id in display order."""

NEUTRAL_BLOCK = ("id", "parent", "time", "transaction_count")
"""Id and parent in display order; time in seconds since the epoch."""


def _bitcoin(*, witness: bool) -> dict[str, dict[str, ColumnType]]:
    """Without witness data in the block, the columns for it are left out; a transaction's witness_id then is its id."""
    block = {"id": ID, "parent": ID, "time": INT64, "transaction_count": UINT32}
    block |= {"version": INT32, "merkle_root": ID, "bits": UINT32, "nonce": UINT32}
    block |= {"size": UINT32, "stripped_size": UINT32, "weight": UINT32}
    transaction = {"id": ID}
    if witness:
        transaction |= {"witness_id": ID}
    transaction |= {"version": UINT32, "lock_time": UINT32, "size": UINT32, "weight": UINT32, "offset": UINT32}
    transaction |= {"input": LIST, "output": LIST}
    spent = {"previous_id": ID, "previous_index": UINT32, "sequence": UINT32, "script": BINARY}
    if witness:
        spent |= {"witness": LIST}
    schema = {
        "block": block,
        "transaction": transaction,
        "input": spent,
        "output": {"amount": UINT64, "script": BINARY},
    }
    if witness:
        schema |= {"witness": {"item": BINARY}}
    return schema


BITCOIN: Schema = _bitcoin(witness=False)
BITCOIN_WITNESS: Schema = _bitcoin(witness=True)
