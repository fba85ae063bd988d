"""What goes into the fork tracker, what comes out, and what it needs to be told again after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from supervm_rt.model.chain import BlockRef, ChainEvent, ForkMode, Reason, Rejection, Verdict


@dataclass(frozen=True, slots=True)
class ForkRules:
    """The settings of one chain."""

    mode: ForkMode
    final_depth: int | None
    """A canonical block with more than this many canonical blocks above it is final; None: only what is said."""
    orphan_limit: int
    """How many blocks with an unknown parent wait; the oldest is evicted first. 0: they are dropped."""
    holes: bool = False
    """Whether heights may skip (slots)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One block, as far as forks are concerned."""

    hash: bytes
    parent: bytes
    height: int | None
    """None: one above the parent. Never None for a first block (it becomes the root) or where ``holes`` are allowed."""
    weight: int
    final_height: int | None = None
    """Once this block is canonical, canonical blocks up to this height are final."""
    content: bytes = b""
    """Tells two blocks of one hash apart; equal for equal blocks."""


@dataclass(frozen=True, slots=True)
class KnownBlock:
    """A block outside the window: final, or on a branch that finality cut off."""

    parent: bytes
    height: int
    weight: int
    content: bytes
    canonical: bool


class Archive(Protocol):
    """Finds blocks that the tracker no longer holds: all it ever connected that are no longer in its window."""

    def __call__(self, hash_: bytes, /) -> KnownBlock | None:
        """Answers in time that does not grow with the chain (an index)."""


@dataclass(frozen=True, slots=True)
class WindowBlock:
    """A connected block that is the last final one or descends from it."""

    candidate: Candidate
    height: int
    order: int
    """Order of arrival; smaller was seen first."""


@dataclass(frozen=True, slots=True)
class ForkState:
    """All that a tracker needs to go on as if it had never stopped. Empty: no root yet."""

    window: tuple[WindowBlock, ...] = ()
    """Parents before children. The first is the root of the window: the last final block, or the first block of all."""
    tip: bytes | None = None
    final: BlockRef | None = None
    """None while nothing is final."""
    orphans: tuple[tuple[int, Candidate], ...] = ()
    """(order, block), in order of arrival."""
    final_claim: int | None = None
    """The highest ``final_height`` of final blocks, where it is still above what is final."""
    next_order: int = 0


@dataclass(frozen=True, slots=True)
class Connected:
    """A block that found its place: the input itself, or an orphan that waited for it."""

    block: BlockRef
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one input did."""

    verdict: Verdict
    reason: Reason | None = None
    detail: str = ""
    """One sentence for a person, where the verdict is rejected."""
    events: tuple[ChainEvent, ...] = ()
    """Undo from the tip down, then new from the ancestor up, then final upwards."""
    connected: tuple[Connected, ...] = ()
    """In the order in which they connected, the input first."""
    evicted: tuple[bytes, ...] = ()
    """Orphans that had to go for this one."""
    refused: tuple[Rejection, ...] = ()
    """Orphans that this block would have connected, but that do not fit it; they are forgotten."""
    cut: tuple[bytes, ...] = ()
    """Side blocks that finality cut off; they stay known through the archive."""
