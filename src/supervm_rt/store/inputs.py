"""What a mirror is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from supervm_rt.chain.types import Outcome
from supervm_rt.ir.translator import TranslatedBlock
from supervm_rt.model.chain import ChainEvent, Rejection, Verdict

# Every input carries the plugin's position behind it; empty: the plugin gave none, and the stored one stays.


class Buffer(Protocol):
    """Bytes, a memoryview, a frame: whatever lends its bytes."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """Lends the bytes; they are contiguous."""


@dataclass(frozen=True, slots=True)
class BlockInput:
    """A block that its translator has accepted. ``raw`` is read during ``Mirror.apply`` only, and copied there."""

    translated: TranslatedBlock
    raw: Buffer
    position: bytes = b""
    final_height: int | None = None
    """Once this block is canonical, canonical blocks up to this height are final."""


@dataclass(frozen=True, slots=True)
class RefusedInput:
    """A block that its translator has refused: passed on so that the position moves in order."""

    rejection: Rejection
    position: bytes = b""


@dataclass(frozen=True, slots=True)
class ReorgInput:
    """The plugin's word that the canonical blocks above ``to_height`` leave; ``orphans`` are their ids."""

    from_height: int
    to_height: int
    orphans: tuple[bytes, ...]
    position: bytes = b""


@dataclass(frozen=True, slots=True)
class FinalInput:
    """The plugin's word that this block, and so all below it, is final."""

    hash: bytes
    height: int
    position: bytes = b""


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """The plugin has nothing more to send for now."""

    position: bytes = b""


Input: TypeAlias = BlockInput | RefusedInput | ReorgInput | FinalInput | EndOfInput


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one input. By the time this is returned, it is on the disk."""

    input: Input
    outcome: Outcome
    """For a first block that brought the built-in genesis with it, both their events and connections."""
    rejections: tuple[Rejection, ...] = ()
    """Every block that was refused or given up here: this one, orphans evicted for it, orphans that do not fit it. A block that
    was dropped because its parent is unknown and no orphans are kept is not among them: its verdict is ``orphan``."""
    dropped: bool = False
    """The block's parent is unknown, and the chain keeps no orphans: it is not stored."""

    @property
    def verdict(self) -> Verdict:
        """What became of the input itself."""
        return self.outcome.verdict

    @property
    def events(self) -> tuple[ChainEvent, ...]:
        """What it changed on the canonical chain, in order."""
        return self.outcome.events
