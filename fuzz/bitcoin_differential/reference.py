"""Invariant: nothing here is the project's: what python-bitcoinlib reads, judged by the rules as they are written.

Where the library knowingly reads more than a node accepts, ``tolerated`` says so, and how one sees that it is that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitcoin.core import CBlock, Hash
from bitcoin.core.serialize import SerializationError

REGTEST_LIMIT = (1 << 255) - 1


def read(raw: bytes) -> Any | None:
    """The block, or None where the library cannot read it."""
    try:
        block: Any = CBlock.deserialize(raw)
    except (SerializationError, ValueError):
        return None
    return block


# What the parser refuses by these words, and the library reads. Each must be seen in what it read.
TOLERATED: dict[str, Callable[[Any, bytes], bool]] = {
    # The library takes a size in any form, and a transaction marked for witness data without any: it writes them otherwise.
    "a number is not encoded in the shortest way": lambda block, raw: block.serialize() != raw,
    "a transaction is marked to have a witness and has none": lambda block, raw: block.serialize() != raw,
    # It reads transactions without inputs, which begin as marked ones do.
    "a transaction has no inputs": lambda block, raw: any(not tx.vin for tx in block.vtx),
    "a transaction carries optional data of an unknown kind": lambda block, raw: any(not tx.vin for tx in block.vtx),
    "a count or length is larger than what remains of the block": lambda block, raw: any(not tx.vin for tx in block.vtx),
    "ends early": lambda block, raw: any(not tx.vin for tx in block.vtx),
    # Amounts are signed.
    "an amount is negative": lambda block, raw: any(out.nValue < 0 for tx in block.vtx for out in tx.vout),
    "no transactions": lambda block, raw: not block.vtx,
}


def tolerated(detail: str, block: Any, raw: bytes) -> bool:
    """Whether the parser may refuse what the library read."""
    seen = TOLERATED.get(detail.partition(":")[0])
    return seen is not None and seen(block, raw)


def target_of(bits: int) -> int | None:
    """The target; None where it is none."""
    size, word = bits >> 24, bits & 0x7FFFFF
    target = word >> 8 * (3 - size) if size <= 3 else word << 8 * (size - 3)
    return None if bits & 0x800000 or not 0 < target < 1 << 256 else target


def levels(ids: list[bytes]) -> tuple[bytes, bool]:
    """The Merkle root, and whether a level has a pair of equals (CVE-2012-2459)."""
    repeated = False
    while len(ids) > 1:
        repeated |= any(left == right for left, right in zip(ids[::2], ids[1::2], strict=False))
        if len(ids) % 2:
            ids = [*ids, ids[-1]]
        ids = [Hash(left + right) for left, right in zip(ids[::2], ids[1::2], strict=True)]
    return ids[0], repeated


def commitment_of(block: Any) -> tuple[bytes, bytes | None] | None:
    """What the coinbase commits to, and what it should (None: it has no nonce). None: it commits to nothing."""
    found = None
    for out in block.vtx[0].vout:
        script = bytes(out.scriptPubKey)
        if len(script) >= 38 and script.startswith(bytes.fromhex("6a24aa21a9ed")):
            found = script[6:38]
    if found is None:
        return None
    witness = block.vtx[0].wit.vtxinwit
    stack: Any = witness[0].scriptWitness.stack if witness else ()
    if len(stack) != 1 or len(stack[0]) != 32:
        return found, None
    root, _ = levels([bytes(32), *(tx.GetHash() for tx in block.vtx[1:])])
    return found, Hash(root + stack[0])


def verdict(block: Any) -> str:
    """The empty text where a node accepts the block on its own, else why not, by the names that a node has for it."""
    target = target_of(block.nBits)
    if target is None or target > REGTEST_LIMIT or int.from_bytes(block.GetHash(), "little") > target:
        return "high-hash"
    root, repeated = levels([tx.GetTxid() for tx in block.vtx])
    if root != block.hashMerkleRoot:
        return "bad-txnmrklroot"
    if repeated:
        return "duplicate-txs"
    if [tx.is_coinbase() for tx in block.vtx] != [True] + [False] * (len(block.vtx) - 1):
        return "malformed"
    commitment = commitment_of(block)
    if commitment is None:
        return "bad-witness-merkle-match" if any(tx.has_witness() for tx in block.vtx) else ""
    return "" if commitment[0] == commitment[1] else "bad-witness-merkle-match"
