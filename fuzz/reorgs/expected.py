"""What one chain of a store must hold, said plainly: every block in order of arrival, every event, the position of each plugin.

Which events follow from a block is said by the plain model of the fork rules (``tests.chain.model``), which keeps everything for
ever and works it all out anew for each input.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from supervm_rt.chain.types import Candidate, ForkRules
from supervm_rt.model.chain import BlockRef
from tests.chain.model import Answer, Model


@dataclass
class Expected:
    """One chain."""

    family: str
    network: str
    rules: ForkRules
    model: Model = field(init=False)
    arrived: dict[bytes, tuple[Candidate, bytes, bytes]] = field(default_factory=dict)
    """Blocks that are stored, in order of arrival: the candidate, raw bytes, IR."""
    events: list[tuple[str, bytes]] = field(default_factory=list)
    positions: dict[str, bytes] = field(default_factory=dict)
    reorgs: int = 0
    deepest_reorg: int = 0
    cut: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.model = Model(self.rules, None)

    def block(self, candidate: Candidate, raw: bytes, ir: bytes) -> Answer:
        """A block arrives."""
        return self._note(self.model.block(candidate), candidate, raw, ir)

    def finalize(self, hash_: bytes, height: int) -> Answer:
        """A block is said to be final."""
        return self._note(self.model.finalize(hash_, height))

    def reorg(self, from_height: int, to_height: int, orphans: list[bytes]) -> Answer:
        """Blocks are said to leave."""
        return self._note(self.model.reorg(from_height, to_height, orphans))

    def _note(self, answer: Answer, candidate: Candidate | None = None, raw: bytes = b"", ir: bytes = b"") -> Answer:
        kept = answer.verdict == "orphan" and self.rules.orphan_limit > 0
        if candidate is not None and (kept or candidate.hash in answer.connected):
            self.arrived[candidate.hash] = (candidate, raw, ir)
        for hash_ in (*answer.evicted, *answer.refused):
            del self.arrived[hash_]
        undone = sum(step == "undo" for step, _ in answer.events)
        self.reorgs += undone > 0
        self.deepest_reorg = max(self.deepest_reorg, undone)
        self.cut |= answer.cut
        self.events += answer.events
        return answer

    def height(self, hash_: bytes) -> int | None:
        """As stored: worked out where the block is connected, else as it said."""
        return self.model.height.get(hash_, self.arrived[hash_][0].height)

    def state(self, hash_: bytes) -> str:
        """As the digest has it."""
        if hash_ not in self.model.blocks:
            return "waiting"
        if hash_ in self.model.canonical:
            return "final" if self.model.canonical.index(hash_) < self.model.final_count else "canonical"
        return "cut" if hash_ in self.cut else "side"

    def tip(self) -> BlockRef | None:
        """The last canonical block."""
        canonical = self.model.canonical
        return BlockRef(canonical[-1], self.model.height[canonical[-1]]) if canonical else None

    def final(self) -> BlockRef | None:
        """The last final block."""
        if not self.model.final_count:
            return None
        hash_ = self.model.canonical[self.model.final_count - 1]
        return BlockRef(hash_, self.model.height[hash_])

    def digest(self) -> str:
        """The store's digest of this chain, by its description in ``store.digest``."""
        parts = [b"supervm-rt chain digest 1", self.family.encode(), self.network.encode(), str(self.rules.mode).encode()]
        for hash_, (candidate, raw, ir) in self.arrived.items():
            weight = candidate.weight.to_bytes((candidate.weight.bit_length() + 7) // 8, "big")
            parts += [hash_, candidate.parent, _number(self.height(hash_)), weight, candidate.content]
            parts += [self.state(hash_).encode(), raw, ir]
        parts.append(_number(len(self.arrived)))
        for step, hash_ in self.events:
            parts += [step.encode(), hash_, _number(self.model.height[hash_])]
        parts.append(_number(len(self.events)))
        return hashlib.sha256(b"".join(struct.pack(">Q", len(part)) + part for part in parts)).hexdigest()


def _number(value: int | None) -> bytes:
    return b"" if value is None else struct.pack(">Q", value)
