"""The fork rules said plainly: everything is kept for ever and computed anew for each input. Slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from supervm_rt.chain.types import Candidate, ForkRules
from supervm_rt.model.chain import BlockRef, ForkMode


@dataclass
class Answer:
    """Short for an Outcome."""

    verdict: str
    events: list[tuple[str, bytes]] = field(default_factory=list)
    connected: list[bytes] = field(default_factory=list)
    evicted: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    cut: set[bytes] = field(default_factory=set)


class Model:
    def __init__(self, rules: ForkRules, root: BlockRef | None) -> None:
        self.rules = rules
        self.blocks: dict[bytes, Candidate] = {}
        self.height: dict[bytes, int] = {}
        self.paths: dict[bytes, list[bytes]] = {}
        """From the first block to this one."""
        self.total: dict[bytes, int] = {}
        self.seen: dict[bytes, int] = {}
        self.claims: list[tuple[bytes, int]] = []
        self.waiting: list[Candidate] = []
        self.canonical: list[bytes] = []
        self.final_count = 0
        self.count = 0
        self.root = root
        if root is not None:
            self._connect(Candidate(root.hash, b"", root.height, 0), root.height)
            self.canonical, self.final_count = [root.hash], 1

    def alive(self) -> list[bytes]:
        """Connected blocks that a chain through all final blocks can hold, without the final ones below the last."""
        if not self.final_count:
            return list(self.blocks)
        final = self.canonical[self.final_count - 1]
        return [hash_ for hash_ in self.blocks if self.paths[hash_][self.final_count - 1 : self.final_count] == [final]]

    def block(self, block: Candidate) -> Answer:
        heights = [height for height in (block.height, block.final_height) if height is not None]
        if not 0 <= block.weight <= 2**256 or any(height < 0 for height in heights):
            return Answer("malformed")
        if block.height is None and (self.rules.holes or not self.blocks):
            return Answer("malformed")
        if block.hash == block.parent:
            return Answer("self-parent")
        waiting = {orphan.hash: orphan for orphan in self.waiting}
        if block.hash in self.blocks or block.hash in waiting:
            return self._known(block, waiting.get(block.hash))
        if not self.blocks:
            assert block.height is not None
            self._connect(block, block.height)
            return self._then(Answer("accepted", connected=[block.hash]), [block.hash])
        if block.parent not in self.blocks:
            return self._wait(block)
        if block.parent not in self.alive():
            return Answer("below-final")
        height = self._fit(block)
        if height is None:
            return Answer("height")
        self._connect(block, height)
        answer = Answer("accepted", connected=[block.hash])
        for parent in answer.connected:
            for orphan in [orphan for orphan in self.waiting if orphan.parent == parent]:
                self.waiting.remove(orphan)
                height = self._fit(orphan)
                if height is None:
                    answer.refused.append(orphan.hash)
                else:
                    self._connect(orphan, height)
                    answer.connected.append(orphan.hash)
        return self._then(answer, self.paths[self._best(answer.connected)])

    def finalize(self, hash_: bytes, height: int) -> Answer:
        if height < 0:
            return Answer("malformed")
        if hash_ not in self.canonical or self.height[hash_] != height:
            return Answer("not-canonical")
        return self._then(Answer("accepted"), self.canonical, self.canonical.index(hash_) + 1)

    def reorg(self, from_height: int, to_height: int, orphans: Sequence[bytes]) -> Answer:
        if from_height < 0 or to_height < 0 or to_height > from_height:
            return Answer("malformed")
        if not self.canonical or from_height != self.height[self.canonical[-1]]:
            return Answer("not-canonical")
        if self.final_count and to_height < self.height[self.canonical[self.final_count - 1]]:
            return Answer("below-final")
        above = [hash_ for hash_ in self.canonical if self.height[hash_] > to_height]
        if sorted(above) != sorted(orphans) or above == self.canonical:
            return Answer("not-canonical")
        keep = self.canonical[: len(self.canonical) - len(above)]
        return self._then(Answer("accepted"), keep if self.rules.mode is ForkMode.FOLLOW else self.canonical)

    def _connect(self, block: Candidate, height: int) -> None:
        self.blocks[block.hash] = block
        self.height[block.hash] = height
        self.paths[block.hash] = [*self.paths.get(block.parent, ()), block.hash]
        self.total[block.hash] = block.weight + self.total.get(block.parent, 0)
        if block.hash not in self.seen:
            self._see(block)
        if block.final_height is not None:
            self.claims.append((block.hash, block.final_height))

    def _see(self, block: Candidate) -> None:
        self.seen[block.hash] = self.count
        self.count += 1

    def _fit(self, block: Candidate) -> int | None:
        below = self.height[block.parent]
        height = below + 1 if block.height is None else block.height
        return height if (height > below if self.rules.holes else height == below + 1) else None

    def _known(self, block: Candidate, orphan: Candidate | None) -> Answer:
        known = orphan or self.blocks[block.hash]
        height = known.height if orphan else self.height[block.hash]
        same = (known.parent, known.content) == (block.parent, block.content)
        same = same and (known.weight == block.weight or self.rules.mode is ForkMode.LONGEST)
        if self.root is not None and block.hash == self.root.hash:
            same = True
        if not same or (block.height is not None and height is not None and block.height != height):
            return Answer("conflict")
        returns = self.rules.mode is ForkMode.FOLLOW and block.hash in self.blocks and block.hash not in self.canonical
        if not returns or block.hash not in self.alive():
            return Answer("duplicate")
        if block.final_height is not None:
            self.claims.append((block.hash, block.final_height))
        return self._then(Answer("accepted"), self.paths[block.hash])

    def _wait(self, block: Candidate) -> Answer:
        answer = Answer("orphan")
        if self.rules.orphan_limit > 0:
            if len(self.waiting) == self.rules.orphan_limit:
                answer.evicted.append(self.waiting.pop(0).hash)
            self.waiting.append(block)
            self._see(block)
        for hash_ in answer.evicted:
            del self.seen[hash_]
        return answer

    def score(self, hash_: bytes) -> int:
        """What decides, but in the mode follow."""
        return self.height[hash_] if self.rules.mode is ForkMode.LONGEST else self.total[hash_]

    def _best(self, connected: list[bytes]) -> bytes:
        if self.rules.mode is ForkMode.FOLLOW:
            parents = {self.blocks[hash_].parent for hash_ in connected}
            return max((hash_ for hash_ in connected if hash_ not in parents), key=self.seen.__getitem__)
        alive = self.alive()
        best = max(map(self.score, alive))
        if self.score(self.canonical[-1]) == best:
            return self.canonical[-1]
        return min((hash_ for hash_ in alive if self.score(hash_) == best), key=self.seen.__getitem__)

    def _then(self, answer: Answer, canonical: list[bytes], said: int = 0) -> Answer:
        """Switches to another canonical chain, and says what is final then."""
        before = set(self.alive()) | set(answer.connected)
        common = 0
        while common < min(len(canonical), len(self.canonical)) and canonical[common] == self.canonical[common]:
            common += 1
        answer.events += [("undo", hash_) for hash_ in reversed(self.canonical[common:])]
        answer.events += [("new", hash_) for hash_ in canonical[common:]]
        self.canonical = canonical
        claim = max((height for hash_, height in self.claims if hash_ in canonical), default=-1)
        final = max(self.final_count, said, sum(self.height[hash_] <= claim for hash_ in canonical))
        if self.rules.final_depth is not None:
            final = max(final, len(canonical) - self.rules.final_depth - 1)
        answer.events += [("final", hash_) for hash_ in canonical[self.final_count : final]]
        self.final_count = final
        answer.cut = before - set(self.alive()) - set(canonical)
        return answer
