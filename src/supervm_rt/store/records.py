"""What reading a store gives: values, detached from it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from supervm_rt.chain.types import ForkRules
from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.model.ir import TransactionIR


class BlockState(enum.StrEnum):
    """Where a stored block stands."""

    WAITING = "waiting"
    """Its parent is unknown."""
    SIDE = "side"
    """Connected, on a branch that is not canonical and may become so."""
    CANONICAL = "canonical"
    """On the canonical chain, and not final."""
    FINAL = "final"
    """On the canonical chain for ever."""
    CUT = "cut"
    """On a branch that finality has cut off."""


@dataclass(frozen=True, slots=True)
class ChainInfo:
    """One chain of a store."""

    name: str
    family: str
    network: str
    rules: ForkRules
    tip: BlockRef | None
    final: BlockRef | None


@dataclass(frozen=True, slots=True)
class ChainStatistics:
    """Counts over a chain's life."""

    blocks: int
    """Connected blocks of all branches."""
    waiting: int
    """Orphans that are stored and wait."""
    canonical: int
    """Blocks on the canonical chain."""
    transactions: int
    """Transactions of the canonical chain."""
    bytes: int
    """Raw bytes of connected blocks."""
    events: int
    reorgs: int
    """How often canonical blocks were undone."""
    deepest_reorg: int
    """The most blocks that were undone at once."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block of a chain, without its bytes."""

    id: int
    """The store's own number for it; meaningless outside this store."""
    hash: bytes
    parent: bytes
    height: int | None
    """None only for a waiting block that stated none."""
    weight: int
    """The block's own."""
    time: int
    """Seconds since the epoch, as the block says."""
    transactions: int
    """How many it holds."""
    size: int
    """Raw bytes."""
    state: BlockState


@dataclass(frozen=True, slots=True)
class StoredTransaction:
    """A transaction and where it was found."""

    block: StoredBlock
    position: int
    """Place in the block, from 0."""
    transaction: TransactionIR


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One entry of the event log."""

    sequence: int
    """Global order over all chains of the store; grows, with or without gaps."""
    chain: str
    step: Step
    block: BlockRef
