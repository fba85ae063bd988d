"""What is said of blocks: references, events, verdicts.

A block id is ``bytes``: opaque to everything but the chain's own translator, in the order in which the chain prints it, so that
``id.hex()`` is the text that a Bitcoin RPC or an Ethereum explorer shows.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ForkMode(enum.StrEnum):
    """How the canonical chain is chosen."""

    FOLLOW = "follow"
    """The plugin's order is the canonical chain."""
    LONGEST = "longest"
    """The highest block; the first seen on a tie."""
    HEAVIEST = "heaviest"
    """The most accumulated weight; the first seen on a tie."""


class Step(enum.StrEnum):
    """What happened to a block on the canonical chain."""

    NEW = "new"
    UNDO = "undo"
    FINAL = "final"


class Verdict(enum.StrEnum):
    """What became of one input."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    ORPHAN = "orphan"
    REJECTED = "rejected"


class Reason(enum.StrEnum):
    """Why an input was rejected."""

    SELF_PARENT = "self-parent"
    HEIGHT = "height"
    BELOW_FINAL = "below-final"
    ORPHAN_LIMIT = "orphan-limit"
    CONFLICT = "conflict"
    NOT_CANONICAL = "not-canonical"
    MALFORMED = "malformed"
    HIGH_HASH = "high-hash"
    BAD_MERKLE_ROOT = "bad-txnmrklroot"
    BAD_WITNESS = "bad-witness-merkle-match"
    DUPLICATE_TRANSACTIONS = "duplicate-txs"


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block of one chain, by id and height."""

    hash: bytes
    height: int


@dataclass(frozen=True, slots=True)
class ChainEvent:
    """One step of the canonical chain."""

    step: Step
    block: BlockRef


@dataclass(frozen=True, slots=True)
class Rejection:
    """A block or statement that was refused. ``hash`` is None where the bytes were too broken to have one."""

    hash: bytes | None
    reason: Reason
    detail: str = ""
