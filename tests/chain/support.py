"""A tracker with an archive in memory, as small as a store can be, and the replay over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from supervm_rt.chain.tracker import ForkTracker
from supervm_rt.chain.types import Candidate, ForkRules, ForkState, KnownBlock, Outcome
from supervm_rt.chain.vectors import (
    BlockInput,
    FinalInput,
    Malformed,
    ReorgInput,
    RestartInput,
    read_vectors,
    render_outcome,
)
from supervm_rt.model.chain import BlockRef, ForkMode, Step, Verdict


class MemoryChain:
    """What a store does with outcomes: remembers what connected, and which of it is canonical."""

    def __init__(self, rules: ForkRules, root: BlockRef | None = None) -> None:
        self.rules = rules
        self.known: dict[bytes, KnownBlock] = {}
        self.canonical: set[bytes] = set()
        self.archive_calls = 0
        self.tracker = ForkTracker(rules, ForkState(), self._archive)
        if root is not None:
            self._keep(self.tracker.set_root(root))
            self.canonical.add(root.hash)

    def block(self, candidate: Candidate) -> Outcome:
        return self._keep(self.tracker.block(candidate))

    def finalize(self, hash_: bytes, height: int) -> Outcome:
        return self._keep(self.tracker.finalize(hash_, height))

    def reorg(self, from_height: int, to_height: int, orphans: Sequence[bytes]) -> Outcome:
        return self._keep(self.tracker.reorg(from_height, to_height, orphans))

    def restart(self) -> None:
        """Goes on with another tracker, made from the state of the one before."""
        self.tracker = ForkTracker(self.rules, self.tracker.state(), self._archive)

    def _archive(self, hash_: bytes, /) -> KnownBlock | None:
        self.archive_calls += 1
        block = self.known.get(hash_)
        if block is None:
            return None
        return KnownBlock(block.parent, block.height, block.weight, block.content, hash_ in self.canonical)

    def _keep(self, outcome: Outcome) -> Outcome:
        for connected in outcome.connected:
            candidate = connected.candidate
            self.known[candidate.hash] = KnownBlock(
                candidate.parent, connected.block.height, candidate.weight, candidate.content, canonical=False
            )
        for event in outcome.events:
            if event.step is Step.NEW:
                self.canonical.add(event.block.hash)
            elif event.step is Step.UNDO:
                self.canonical.remove(event.block.hash)
        return outcome


def replay_in_memory(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The answers to a file of reorg sequences."""
    setup, inputs = read_vectors(lines)
    chain = MemoryChain(setup.rules, setup.root)
    for input_ in inputs:
        match input_:
            case BlockInput(candidate):
                outcome = chain.block(candidate)
            case FinalInput(hash_, height):
                outcome = chain.finalize(hash_, height)
            case ReorgInput(from_height, to_height, orphans):
                outcome = chain.reorg(from_height, to_height, orphans)
            case RestartInput():
                chain.restart()
                outcome = Outcome(Verdict.ACCEPTED)
            case Malformed():
                outcome = input_.outcome
        yield render_outcome(input_, outcome, chain.tracker.tip)


class Story:
    """Tells a chain block by block, in short ids, and reads outcomes back in the same short words."""

    def __init__(
        self,
        mode: ForkMode = ForkMode.HEAVIEST,
        *,
        final_depth: int | None = None,
        orphans: int = 10,
        holes: bool = False,
        root: tuple[str, int] | None = ("root", 10),
    ) -> None:
        reference = None if root is None else BlockRef(root[0].encode(), root[1])
        self.chain = MemoryChain(ForkRules(mode, final_depth, orphans, holes), reference)
        self.heights: dict[str, int] = {} if root is None else {root[0]: root[1]}
        self.outcome = Outcome(Verdict.ACCEPTED)

    def block(
        self,
        name: str,
        parent: str,
        *,
        height: int | None = None,
        weight: int = 1,
        final_height: int | None = None,
        content: bytes = b"",
        unstated: bool = False,
    ) -> str:
        """Sends a block, by default at the height it had before, or one above its parent; ``unstated``: without its height."""
        if height is None and not unstated:
            height = self.heights.get(name, self.heights.get(parent, 0) + 1)
        outcome = self.chain.block(Candidate(name.encode(), parent.encode(), height, weight, final_height, content))
        if height is not None and outcome.verdict is not Verdict.REJECTED:
            self.heights[name] = height
        return self.told(outcome)

    def line(self, parent: str, *names: str, weight: int = 1) -> str:
        """Sends one block upon the other; answers for the last."""
        answer = ""
        for name in names:
            answer = self.block(name, parent, weight=weight)
            parent = name
        return answer

    def final(self, name: str, height: int | None = None) -> str:
        return self.told(self.chain.finalize(name.encode(), self.heights[name] if height is None else height))

    def reorg(self, from_height: int, to_height: int, *orphans: str) -> str:
        return self.told(self.chain.reorg(from_height, to_height, [name.encode() for name in orphans]))

    def told(self, outcome: Outcome) -> str:
        """``+new -undone !final`` where accepted, else the reason, else the verdict."""
        self.outcome = outcome
        if outcome.reason is not None:
            assert outcome.verdict is Verdict.REJECTED
            assert outcome.detail
            assert not outcome.events
            return str(outcome.reason)
        if outcome.verdict is not Verdict.ACCEPTED:
            return str(outcome.verdict)
        signs = {Step.NEW: "+", Step.UNDO: "-", Step.FINAL: "!"}
        return " ".join(signs[event.step] + event.block.hash.decode() for event in outcome.events)

    @property
    def tip(self) -> str:
        tip = self.chain.tracker.tip
        return "" if tip is None else f"{tip.hash.decode()}@{tip.height}"

    @property
    def last_final(self) -> str:
        final = self.chain.tracker.final
        return "" if final is None else f"{final.hash.decode()}@{final.height}"
