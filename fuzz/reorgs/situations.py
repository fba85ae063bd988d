"""What happened in a world, counted: a campaign that never meets a situation proves nothing about it.

``SITUATIONS`` names all that a campaign has to meet; its test holds it to them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fuzz.reorgs.expected import Expected
from fuzz.reorgs.feed import Said
from supervm_rt.model.chain import ForkMode
from supervm_rt.store import FinalInput, ReorgInput
from tests.chain.model import Answer

DEEP = 20
"""Blocks that a reorg undoes to count as deep."""

BLOCK_SITUATIONS = {
    "orphan": "orphans waiting",
    "duplicate": "duplicates",
    "conflict": "conflicts",
    "height": "wrong heights",
    "below-final": "blocks below final",
    "malformed": "malformed blocks",
    "self-parent": "self-parents",
    "bad-txnmrklroot": "twins with a wrong Merkle root",
    "duplicate-txs": "twins that repeat transactions",
}
FOLLOWER_SITUATIONS = tuple(
    f"followers that {what}"
    for what in ("came", "went", "read", "turned to lagging or back", "went on from a cursor", "were told all")
)
SITUATIONS = (
    *BLOCK_SITUATIONS.values(),
    "orphans connected",
    "orphans evicted",
    "orphans refused",
    "reorgs",
    "deep reorgs",
    "reorgs back to an earlier branch",
    "ties",
    "holes",
    "final blocks",
    "blocks cut off by finality",
    "claims of blocks to come",
    "statements of finality accepted",
    "statements of finality refused",
    "statements of reorg accepted",
    "statements of reorg refused",
    "statements of reorg below final",
    "changes of plugin",
    "clean reopenings",
    "reopenings that lost batches",
    "crashes",
    "digests compared",
    "consumers that went on where events were deleted",
    "consumers that came too late",
    *FOLLOWER_SITUATIONS,
    *(f"worlds with a chain of mode {mode}" for mode in ForkMode),
)


@dataclass
class Situations:
    """Counts, and the deepest reorg in blocks."""

    counts: Counter[str] = field(default_factory=Counter)
    deepest: int = 0

    def add(self, other: Situations) -> None:
        """Takes another world's counts in."""
        self.counts.update(other.counts)
        self.deepest = max(self.deepest, other.deepest)

    def note(self, expected: Expected, said: Said, answer: Answer) -> None:
        """One input and its answer, when the model has taken it."""
        counts = self.counts
        match said.input:
            case FinalInput():
                counts[f"statements of finality {'accepted' if answer.verdict == 'accepted' else 'refused'}"] += 1
            case ReorgInput():
                word = {"accepted": "accepted", "below-final": "below final"}.get(answer.verdict, "refused")
                counts[f"statements of reorg {word}"] += 1
            case _:
                if answer.verdict in BLOCK_SITUATIONS:
                    counts[BLOCK_SITUATIONS[answer.verdict]] += 1
        counts["orphans connected"] += len(answer.connected[1:])
        counts["orphans evicted"] += len(answer.evicted)
        counts["orphans refused"] += len(answer.refused)
        counts["blocks cut off by finality"] += len(answer.cut)
        steps = Counter(step for step, _ in answer.events)
        counts["final blocks"] += steps["final"]
        counts["reorgs"] += steps["undo"] > 0
        counts["deep reorgs"] += steps["undo"] >= DEEP
        self.deepest = max(self.deepest, steps["undo"])
        connected = set(answer.connected)
        counts["reorgs back to an earlier branch"] += any(
            step == "new" and hash_ not in connected for step, hash_ in answer.events
        )
        self._compare_with_the_tip(expected, answer)

    def _compare_with_the_tip(self, expected: Expected, answer: Answer) -> None:
        """Blocks that are as good as the tip, and heights that skip."""
        model = expected.model
        for hash_ in answer.connected:
            side = hash_ not in model.canonical and expected.rules.mode is not ForkMode.FOLLOW
            self.counts["ties"] += side and model.score(hash_) == model.score(model.canonical[-1])
            below = model.height.get(model.blocks[hash_].parent)
            claim = model.blocks[hash_].final_height
            self.counts["claims of blocks to come"] += claim is not None and claim > model.height[hash_]
            self.counts["holes"] += below is not None and model.height[hash_] > below + 1
