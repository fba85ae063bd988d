"""Which block is canonical, which is no longer, which will always be: one chain's blocks in, events out. No IO, no clock.

The tracker holds the blocks that are not yet final (the window) and the orphans that wait. All other blocks that it ever
connected it finds through its archive, which must know them as soon as the outcome that removed them from the window has been
returned. Time per block is O(what the outcome lists + log); memory is O(window + orphans); neither depends on the chain's length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from supervm_rt.chain.orphans import OrphanPool
from supervm_rt.chain.types import (
    Archive,
    Candidate,
    Connected,
    ForkRules,
    ForkState,
    Outcome,
    WindowBlock,
)
from supervm_rt.chain.window import Node, Window
from supervm_rt.model.chain import BlockRef, ChainEvent, ForkMode, Reason, Rejection, Step, Verdict

MAX_HEIGHT: Final = 2**63 - 1
"""The highest height that a block or a statement can name: what a signed 64-bit column holds."""
MAX_WEIGHT: Final = 2**256
"""The largest weight of one block; sums are not bounded."""


@dataclass(frozen=True, slots=True)
class ForkStatistics:
    """What a tracker holds just now, in blocks."""

    window: int
    """Connected blocks held: the last final one and its descendants."""
    side: int
    """Those of them that are not canonical."""
    orphans: int
    orphan_limit: int


class ForkTracker:
    """Follows one chain through its forks.

    Not safe for use from several threads at once. An input that is refused leaves the tracker as it was, and so does an exception
    out of the archive.
    """

    def __init__(self, rules: ForkRules, state: ForkState, archive: Archive) -> None:
        """``state`` is empty for a new chain, or an earlier tracker's ``state()``; ValueError where it contradicts itself."""
        if rules.orphan_limit < 0 or (rules.final_depth is not None and rules.final_depth < 0):
            raise ValueError("orphan_limit and final_depth must not be negative")
        self._rules = rules
        self._archive = archive
        self._orphans = OrphanPool(rules.orphan_limit, state.orphans)
        self._next_order = state.next_order
        # Only claims of final blocks need a memory: a claim below its own block's height is used up as soon as that block is
        # canonical, and any other makes its own block final.
        self._claim = state.final_claim
        self._window = Window()
        self._restore(state)

    @property
    def tip(self) -> BlockRef | None:
        """The last canonical block; None before the first block."""
        return None if self._window.tip is None else self._window.tip.ref

    @property
    def final(self) -> BlockRef | None:
        """The last final block; None while nothing is final."""
        return self._window.base.ref if self._window.base is not None and self._window.base_is_final else None

    @property
    def final_claim(self) -> int | None:
        """The height up to which final blocks said that the chain is final, where that is above the last final block."""
        return self._claim

    @property
    def next_order(self) -> int:
        """The order that the next block to be kept gets."""
        return self._next_order

    def statistics(self) -> ForkStatistics:
        """Takes constant time."""
        tip, base = self._window.tip, self._window.base
        canonical = tip.depth - base.depth + 1 if tip is not None and base is not None else 0
        return ForkStatistics(len(self._window), len(self._window) - canonical, len(self._orphans), self._rules.orphan_limit)

    def state(self) -> ForkState:
        """All that another tracker needs to go on from here. Takes time O(window + orphans)."""
        return ForkState(
            window=tuple(WindowBlock(node.candidate, node.ref.height, node.order) for node in self._window),
            tip=None if self._window.tip is None else self._window.tip.ref.hash,
            final=self.final,
            orphans=self._orphans.items(),
            final_claim=self._claim,
            next_order=self._next_order,
        )

    def set_root(self, ref: BlockRef) -> Outcome:
        """Starts the chain at a block of which only id and height are known: tip and final, without an event.

        The outcome lists it as connected, with itself as its parent, which no block that is sent can say of itself: it tells that
        parent, weight and content are not known, and so are not compared where this block is sent later. ValueError where the
        chain has begun or the height is out of range.
        """
        if self._window.base is not None:
            raise ValueError("the chain has a root already")
        if not 0 <= ref.height <= MAX_HEIGHT:
            raise ValueError(f"the root's height must be between 0 and {MAX_HEIGHT}, not {ref.height}")
        candidate = Candidate(hash=ref.hash, parent=ref.hash, height=ref.height, weight=0)
        node = self._window.plant(candidate, ref.height, self._take_order())
        self._window.base_is_final = True
        return Outcome(Verdict.ACCEPTED, connected=_connected([node]))

    def block(self, candidate: Candidate) -> Outcome:
        """Takes one block."""
        problem = self._malformed(candidate)
        if problem is not None:
            return _rejected(Reason.MALFORMED, problem)
        if candidate.parent == candidate.hash:
            return _rejected(Reason.SELF_PARENT, "the block names itself as its parent")
        node = self._window.get(candidate.hash)
        if node is not None:
            return self._seen_in_window(candidate, node)
        waiting = self._orphans.get(candidate.hash)
        if waiting is not None:
            return self._seen(candidate, waiting.parent, waiting.height, waiting.weight, waiting.content)
        known = self._archive(candidate.hash)
        if known is not None:
            return self._seen(candidate, known.parent, known.height, known.weight, known.content)
        if self._window.base is None:
            assert candidate.height is not None  # else malformed
            node = self._window.plant(candidate, candidate.height, self._take_order())
            return self._accepted(connected=[node], joined=[node])
        parent = self._window.get(candidate.parent)
        if parent is None:
            return self._without_parent(candidate)
        height = self._fit(candidate, parent)
        if isinstance(height, str):
            return _rejected(Reason.HEIGHT, height)
        node = self._window.attach(candidate, height, self._take_order(), parent)
        connected, refused = self._connect_waiting(node)
        target = self._choose(connected)
        left, joined = self._window.switch(target) if target is not None else ([], [])
        return self._accepted(connected=connected, refused=refused, left=left, joined=joined)

    def finalize(self, hash_: bytes, height: int) -> Outcome:
        """Takes the word that a block, and so all below it, is final."""
        if height < 0:
            return _rejected(Reason.MALFORMED, f"a height is never negative, as {height} is")
        node = self._window.get(hash_)
        if node is not None:
            if not node.canonical:
                return _rejected(Reason.NOT_CANONICAL, "the block said to be final is on a side branch")
            if node.ref.height != height:
                return _rejected(Reason.NOT_CANONICAL, f"the block said to be final has height {node.ref.height}, not {height}")
            return self._accepted(up_to=node)
        known = self._archive(hash_)
        if known is None or not known.canonical:
            return _rejected(Reason.NOT_CANONICAL, "the block said to be final is not on the canonical chain")
        if known.height != height:
            return _rejected(Reason.NOT_CANONICAL, f"the block said to be final has height {known.height}, not {height}")
        return Outcome(Verdict.ACCEPTED)

    def reorg(self, from_height: int, to_height: int, orphans: Sequence[bytes]) -> Outcome:
        """Takes the word that the canonical blocks above ``to_height``, which are ``orphans``, are no longer canonical.

        Checked against the tracked chain. In ``follow`` mode these blocks are then undone; the other modes choose by the blocks
        alone.
        """
        if from_height < 0 or to_height < 0 or to_height > from_height:
            return _rejected(Reason.MALFORMED, f"a reorg goes down from its height, not from {from_height} to {to_height}")
        tip, final = self._window.tip, self.final
        if tip is None:
            return _rejected(Reason.NOT_CANONICAL, "there is no block yet that a reorg could undo")
        if from_height != tip.ref.height:
            return _rejected(Reason.NOT_CANONICAL, f"the reorg starts from height {from_height}, the tip is at {tip.ref.height}")
        if final is not None and to_height < final.height:
            return _rejected(Reason.BELOW_FINAL, f"the reorg goes down to {to_height}, and {final.height} is final")
        named = set(orphans)
        node: Node | None = tip
        undone = 0
        while node is not None and node.ref.height > to_height:
            if node.ref.hash not in named:
                return _rejected(Reason.NOT_CANONICAL, f"the reorg leaves out the canonical block at height {node.ref.height}")
            undone += 1
            node = node.parent
        # Without holes the heights above the base have no gap, so a block that is left stands at to_height.
        if node is None:
            return _rejected(Reason.NOT_CANONICAL, "the reorg leaves no block of the chain")
        if undone != len(orphans):
            return _rejected(Reason.NOT_CANONICAL, "the reorg names blocks that are not canonical, or one twice")
        if self._rules.mode is not ForkMode.FOLLOW:
            return Outcome(Verdict.ACCEPTED)
        left, _ = self._window.switch(node)
        return self._accepted(left=left)

    def _restore(self, state: ForkState) -> None:
        window = self._window
        for held in state.window:
            if window.base is None:
                window.plant(held.candidate, held.height, held.order)
                continue
            parent = window.get(held.candidate.parent)
            if parent is None or window.get(held.candidate.hash) is not None:
                raise ValueError("the state's window is not one tree, parents before children")
            window.attach(held.candidate, held.height, held.order, parent)
        if window.base is None:
            if state.tip is not None or state.final is not None or state.orphans:
                raise ValueError("the state has a tip, a final block or orphans, and no window")
            return
        tip = None if state.tip is None else window.get(state.tip)
        if tip is None:
            raise ValueError("the state's tip is not in its window")
        if state.final is not None and state.final != window.base.ref:
            raise ValueError("the state's final block is not the root of its window")
        window.base_is_final = state.final is not None
        window.switch(tip)

    def _take_order(self) -> int:
        order = self._next_order
        self._next_order += 1
        return order

    def _malformed(self, candidate: Candidate) -> str | None:
        if not 0 <= candidate.weight <= MAX_WEIGHT:
            return "a weight is a whole number from 0 to 2^256"
        if candidate.height is not None and not 0 <= candidate.height <= MAX_HEIGHT:
            return f"a height is a whole number from 0 to {MAX_HEIGHT}"
        if candidate.final_height is not None and candidate.final_height < 0:
            return "a final height is never negative"
        if candidate.height is None and self._rules.holes:
            return "where heights may skip, every block must state its own"
        if candidate.height is None and self._window.base is None:
            return "the first block must state its height"
        return None

    def _seen(self, candidate: Candidate, parent: bytes, height: int | None, weight: int, content: bytes) -> Outcome:
        """Compares a block with what is known under its id."""
        if None not in (candidate.height, height) and candidate.height != height:
            return _rejected(Reason.CONFLICT, f"the id is known at height {height}, not {candidate.height}")
        if parent == candidate.hash:  # a root that was given by name: nothing else is known of it
            return Outcome(Verdict.DUPLICATE)
        if parent != candidate.parent:
            return _rejected(Reason.CONFLICT, "the id is known with another parent")
        if weight != candidate.weight and self._rules.mode is not ForkMode.LONGEST:
            return _rejected(Reason.CONFLICT, f"the id is known with weight {weight}, not {candidate.weight}")
        if content != candidate.content:
            return _rejected(Reason.CONFLICT, "the id is known with other content")
        return Outcome(Verdict.DUPLICATE)

    def _seen_in_window(self, candidate: Candidate, node: Node) -> Outcome:
        first = node.candidate
        outcome = self._seen(candidate, first.parent, node.ref.height, first.weight, first.content)
        if outcome.verdict is Verdict.DUPLICATE and self._rules.mode is ForkMode.FOLLOW and not node.canonical:
            # What the plugin sends last is the canonical chain, also where it was there before.
            left, joined = self._window.switch(node)
            return self._accepted(left=left, joined=joined, sent=candidate)
        return outcome

    def _without_parent(self, candidate: Candidate) -> Outcome:
        if self._archive(candidate.parent) is not None:
            detail = "the block's parent lies below the last final block, or on a branch that it cut off"
            return _rejected(Reason.BELOW_FINAL, detail)
        evicted = self._orphans.make_room()
        if self._orphans.add(self._next_order, candidate):
            self._next_order += 1
        return Outcome(Verdict.ORPHAN, evicted=tuple(evicted))

    def _fit(self, candidate: Candidate, parent: Node) -> int | str:
        """The block's height above this parent, or what is wrong with it."""
        height = candidate.height
        if height is None:
            height = parent.ref.height + 1
            return height if height <= MAX_HEIGHT else f"no block can be above height {MAX_HEIGHT}"
        if self._rules.holes and height <= parent.ref.height:
            return f"the block's height is {height}, not above its parent's, {parent.ref.height}"
        if not self._rules.holes and height != parent.ref.height + 1:
            return f"the block's height is {height}, not one above its parent's, {parent.ref.height}"
        return height

    def _connect_waiting(self, first: Node) -> tuple[list[Node], list[Rejection]]:
        """Connects all orphans that descend from a block that has just been connected."""
        connected = [first]
        refused = []
        pending = deque(connected)
        while pending:
            parent = pending.popleft()
            for order, candidate in self._orphans.take_children(parent.ref.hash):
                height = self._fit(candidate, parent)
                if isinstance(height, str):
                    refused.append(Rejection(candidate.hash, Reason.HEIGHT, height))
                    continue
                node = self._window.attach(candidate, height, order, parent)
                connected.append(node)
                pending.append(node)
        return connected, refused

    def _choose(self, connected: Sequence[Node]) -> Node | None:
        """The new tip, where these newly connected blocks make one."""
        if self._rules.mode is ForkMode.FOLLOW:
            return max((node for node in connected if not node.children), key=lambda node: node.order)
        tip = self._window.tip
        assert tip is not None
        if self._rules.mode is ForkMode.LONGEST:
            best = min(connected, key=lambda node: (-node.ref.height, node.order))
            return best if best.ref.height > tip.ref.height else None
        best = min(connected, key=lambda node: (-node.total, node.order))
        return best if best.total > tip.total else None

    def _accepted(
        self,
        *,
        connected: Sequence[Node] = (),
        refused: Sequence[Rejection] = (),
        left: Sequence[Node] = (),
        joined: Sequence[Node] = (),
        sent: Candidate | None = None,
        up_to: Node | None = None,
    ) -> Outcome:
        """Moves finality after a switch (or a statement about ``up_to``) and puts it all into an outcome."""
        claims = [(node.candidate.final_height, node.ref.height) for node in joined]
        if sent is not None and joined:
            claims.append((sent.final_height, joined[-1].ref.height))
        final, cut = self._settle(claims, up_to)
        events = [ChainEvent(Step.UNDO, node.ref) for node in left]
        events += [ChainEvent(Step.NEW, node.ref) for node in joined]
        events += [ChainEvent(Step.FINAL, ref) for ref in final]
        cut.sort(key=lambda node: node.order)
        return Outcome(
            Verdict.ACCEPTED,
            events=tuple(events),
            connected=_connected(connected),
            refused=tuple(refused),
            cut=tuple(node.ref.hash for node in cut),
        )

    def _settle(self, claims: Iterable[tuple[int | None, int]], up_to: Node | None) -> tuple[list[BlockRef], list[Node]]:
        """Makes final what is due. ``claims``: (final_height, own height) of the blocks that became canonical."""
        window, depth = self._window, self._rules.final_depth
        said = -1 if self._claim is None else self._claim
        lasting = said
        for claim, height in claims:
            if claim is not None:
                said = max(said, claim)
                lasting = max(lasting, claim) if claim >= height else lasting
        final: list[BlockRef] = []
        cut: list[Node] = []
        tip = window.tip
        assert tip is not None
        while (node := window.first_not_final) is not None and (
            node.ref.height <= said
            or (depth is not None and tip.depth - node.depth > depth)
            or (up_to is not None and node.depth <= up_to.depth)
        ):
            cut += window.finalise_first()
            final.append(node.ref)
        reached = self.final
        self._claim = lasting if reached is not None and lasting > reached.height else None
        return final, cut


def _connected(nodes: Iterable[Node]) -> tuple[Connected, ...]:
    return tuple(Connected(node.ref, node.candidate) for node in nodes)


def _rejected(reason: Reason, detail: str) -> Outcome:
    return Outcome(Verdict.REJECTED, reason, detail)
