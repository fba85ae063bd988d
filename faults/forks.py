"""Faults of the fork tracker: which block is canonical, undone, final."""

from __future__ import annotations

from faults.fault import Fault

TRACKER = "src/supervm_rt/chain/tracker.py"
WINDOW = "src/supervm_rt/chain/window.py"
ORPHANS = "src/supervm_rt/chain/orphans.py"

TRACKER_TESTS = ("pytest", "tests/chain/test_tracker.py")
FINALITY_TESTS = ("pytest", "tests/chain/test_finality.py")

FAULTS = (
    Fault(
        "orphan-bound-off-by-one",
        "the pool evicts one orphan too late, and drops the new one instead",
        ORPHANS,
        "while self._by_hash and len(self._by_hash) >= self._limit:",
        "while self._by_hash and len(self._by_hash) > self._limit:",
        TRACKER_TESTS,
    ),
    Fault(
        "orphan-pool-without-a-bound",
        "orphans are taken in without end",
        ORPHANS,
        "        if len(self._by_hash) >= self._limit:\n            return False\n",
        "",
        TRACKER_TESTS,
    ),
    Fault(
        "undo-left-out",
        "the last block that a reorg undoes is not told",
        TRACKER,
        "events = [ChainEvent(Step.UNDO, node.ref) for node in left]",
        "events = [ChainEvent(Step.UNDO, node.ref) for node in left[:-1]]",
        TRACKER_TESTS,
    ),
    Fault(
        "undo-in-the-wrong-order",
        "a reorg is undone from below up",
        TRACKER,
        "events = [ChainEvent(Step.UNDO, node.ref) for node in left]",
        "events = [ChainEvent(Step.UNDO, node.ref) for node in reversed(left)]",
        TRACKER_TESTS,
    ),
    Fault(
        "tie-goes-to-the-last-seen",
        "a branch of equal weight takes the tip's place",
        TRACKER,
        "return best if best.total > tip.total else None",
        "return best if best.total >= tip.total else None",
        TRACKER_TESTS,
    ),
    Fault(
        "tie-of-orphans-goes-to-the-last-seen",
        "of two equal branches that connect at once, the later one wins",
        TRACKER,
        "key=lambda node: (-node.total, node.order)",
        "key=lambda node: (-node.total, -node.order)",
        TRACKER_TESTS,
    ),
    Fault(
        "orphans-connect-one-level-only",
        "children of a connected orphan go on waiting",
        TRACKER,
        "                pending.append(node)\n",
        "",
        TRACKER_TESTS,
    ),
    Fault(
        "block-below-final-waits-as-an-orphan",
        "a parent below the last final block counts as unknown",
        TRACKER,
        "if self._archive(candidate.parent) is not None:",
        "if self._archive(candidate.parent) is candidate:",
        TRACKER_TESTS,
    ),
    Fault(
        "twin-of-other-content-is-a-duplicate",
        "a second block under a known id passes unnoticed",
        TRACKER,
        "if content != candidate.content:",
        "if False:",
        TRACKER_TESTS,
    ),
    Fault(
        "height-may-skip",
        "a chain without holes takes a height two above the parent's",
        TRACKER,
        "if not self._rules.holes and height != parent.ref.height + 1:",
        "if not self._rules.holes and height <= parent.ref.height:",
        TRACKER_TESTS,
    ),
    Fault(
        "final-depth-off-by-one",
        "a block is final one block too early",
        TRACKER,
        "tip.depth - node.depth > depth",
        "tip.depth - node.depth >= depth",
        FINALITY_TESTS,
    ),
    Fault(
        "reorg-below-final",
        "a statement may undo the last final block",
        TRACKER,
        "if final is not None and to_height < final.height:",
        "if final is not None and to_height < final.height - 1:",
        FINALITY_TESTS,
    ),
    Fault(
        "claim-of-finality-lasts-too-long",
        "what an undone block claimed goes on counting",
        TRACKER,
        "lasting = max(lasting, claim) if claim >= height else lasting",
        "lasting = max(lasting, claim)",
        FINALITY_TESTS,
    ),
    Fault(
        "cut-branch-loses-its-root-only",
        "finality cuts off the first block of a side branch and keeps its descendants",
        WINDOW,
        "            pending.extend(node.children)\n",
        "",
        FINALITY_TESTS,
    ),
    Fault(
        "undone-block-stays-canonical",
        "a block that left the chain is still marked as on it",
        WINDOW,
        "            node.canonical = False\n            left.append(node)\n",
        "            left.append(node)\n",
        TRACKER_TESTS,
    ),
)
