"""The chain-neutral IR as values: what a block and its transactions say, with nothing that other blocks would be needed for.

Ids are in display order (``id.hex()`` is what the chain's own tools print); amounts are whole numbers of the smallest unit.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NULL_INDEX = 0xFFFFFFFF
"""The output index of an input that spends nothing (a coinbase)."""


class TransactionKind(enum.StrEnum):
    """What a transaction moves."""

    NATIVE = "NATIVE"
    ERC20 = "ERC20"
    UTXO = "UTXO"


@dataclass(frozen=True, slots=True)
class TransactionInput:
    """One input: the output that it spends, and what it shows for it."""

    previous_id: bytes
    """Id of the transaction whose output is spent; 32 zero bytes for a coinbase."""
    previous_index: int
    """Index of that output; NULL_INDEX for a coinbase."""
    sequence: int
    script: bytes
    witness: tuple[bytes, ...] = ()

    @property
    def coinbase(self) -> bool:
        """Whether this input creates money instead of spending an output."""
        return self.previous_index == NULL_INDEX and not any(self.previous_id)


@dataclass(frozen=True, slots=True)
class TransactionOutput:
    """One output: an amount and the script that guards it."""

    amount: int
    script: bytes


@dataclass(frozen=True, slots=True)
class TransactionIR:
    """One transaction of a block."""

    id: bytes
    witness_id: bytes
    """Id that also commits to the witness; equal to ``id`` where there is none."""
    position: int
    """Place in the block, from 0."""
    version: int
    lock_time: int
    size: int
    """Bytes, witness included."""
    weight: int
    """Weight units (BIP 141)."""
    offset: int
    """Where the transaction begins in the raw block, in bytes; it is ``size`` bytes long there."""
    inputs: tuple[TransactionInput, ...]
    outputs: tuple[TransactionOutput, ...]
    kind: TransactionKind = TransactionKind.UTXO

    @property
    def coinbase(self) -> bool:
        """Whether this transaction creates money."""
        return len(self.inputs) == 1 and self.inputs[0].coinbase

    @property
    def virtual_size(self) -> int:
        """Weight in virtual bytes, rounded up."""
        return (self.weight + 3) // 4


@dataclass(frozen=True, slots=True)
class BlockIR:
    """One block."""

    family: str
    hash: bytes
    parent: bytes
    time: int
    """Seconds since the epoch, as the block says."""
    transactions: Sequence[TransactionIR]
    """May be lazy: a transaction is decoded when it is asked for."""
    header: Mapping[str, int | bytes]
    """What only this family has. Bitcoin: version, merkle_root, bits, nonce, size and stripped_size in bytes, weight in weight
    units."""

    def __hash__(self) -> int:
        return hash((self.family, self.hash))
