"""The tracker against a plain model of the rules, over random trees of blocks in random order.

Each sequence goes to three of them: the model, a tracker that lives through it all, and a tracker that is made anew for every
input from the state of the one before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from supervm_rt.chain.types import Candidate, ForkRules, Outcome
from supervm_rt.model.chain import BlockRef, ForkMode
from tests.chain.model import Answer, Model
from tests.chain.support import MemoryChain

T = TypeVar("T")
MANY = settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
ROOT = BlockRef(b"root", 5)


@st.composite
def rules(draw: st.DrawFn) -> ForkRules:
    return ForkRules(
        mode=draw(st.sampled_from(ForkMode)),
        final_depth=draw(st.sampled_from([None, None, 0, 1, 2, 3, 5])),
        orphan_limit=draw(st.sampled_from([0, 1, 2, 3, 50])),
        holes=draw(st.booleans()),
    )


def mostly(usual: st.SearchStrategy[T], unusual: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.integers(0, 7).flatmap(lambda number: usual if number else unusual)


@st.composite
def tree(draw: st.DrawFn, holes: bool) -> list[Candidate]:
    """Blocks that descend from ROOT, most of them rightly."""
    blocks = [Candidate(ROOT.hash, b"before", ROOT.height, 1)]
    for number in range(draw(st.integers(1, 18))):
        parent = blocks[-1 - min(draw(mostly(st.integers(0, 2), st.integers(0, 20))), len(blocks) - 1)]
        assert parent.height is not None
        step = draw(mostly(st.integers(1, 3) if holes else st.just(1), st.integers(-1, 3)))
        no_claim: st.SearchStrategy[int | None] = st.none()
        claim = draw(mostly(no_claim, st.integers(-9, 5)))
        blocks.append(
            Candidate(
                hash=b"%d" % number,
                parent=parent.hash,
                height=parent.height + step,
                weight=draw(mostly(st.integers(0, 3), st.sampled_from([-1, 2**256, 2**256 + 1]))),
                final_height=None if claim is None else parent.height + step + claim,
            )
        )
    return blocks[1:]


@st.composite
def block_input(draw: st.DrawFn, blocks: list[Candidate]) -> Candidate:
    block = draw(st.sampled_from(blocks))
    match draw(st.integers(0, 25)):
        case 0:
            return replace(block, weight=block.weight + 1)
        case 1:
            return replace(block, content=b"twin")
        case 2:
            return replace(block, height=7)
        case 3:
            return replace(block, parent=draw(st.sampled_from(blocks)).hash)
        case 4 | 9 | 10:
            return replace(block, final_height=draw(st.integers(-1, 12)))
        case 5:
            return Candidate(ROOT.hash, b"before", draw(st.integers(4, 6)), 1)
        case 6 | 7:
            return replace(block, height=None)
        case _:
            return block


def check(outcome: Outcome, answer: Answer) -> None:
    assert (outcome.reason or outcome.verdict) == answer.verdict
    assert [(str(step.step), step.block.hash) for step in outcome.events] == answer.events
    assert sorted(connected.block.hash for connected in outcome.connected) == sorted(answer.connected)
    assert outcome.connected[:1] == () or outcome.connected[0].block.hash == answer.connected[0]
    assert list(outcome.evicted) == answer.evicted
    assert sorted(refused.hash or b"" for refused in outcome.refused) == sorted(answer.refused)
    assert set(outcome.cut) == answer.cut
    assert len(outcome.cut) == len(answer.cut)


@MANY
@given(st.data(), rules(), st.booleans())
def test_the_tracker_agrees_with_the_plain_model_and_with_itself_after_restarts(
    data: st.DataObject, rules: ForkRules, rooted: bool
) -> None:
    root = ROOT if rooted else None
    lasting, restarted, model = MemoryChain(rules, root), MemoryChain(rules, root), Model(rules, root)
    blocks = data.draw(tree(rules.holes))
    # Most sequences begin with the whole tree, in an order that connects or in one that makes orphans; then all is drawn freely.
    inputs = data.draw(st.sampled_from([[], blocks, blocks[::-1], blocks[1:] + blocks[:1]]) | st.permutations(blocks))
    inputs = inputs + data.draw(st.lists(block_input(blocks), max_size=25))
    for block in inputs:
        restarted.restart()
        answer = model.block(block)
        outcome = lasting.block(block)
        check(outcome, answer)
        assert restarted.block(block) == outcome
        match data.draw(st.integers(0, 9)):
            case 0 | 2 if model.canonical:
                below = data.draw(mostly(st.integers(1, 3), st.integers(1, 20)))
                hash_ = model.canonical[-min(below, len(model.canonical))]
                height = model.height[hash_] + data.draw(mostly(st.just(0), st.integers(-20, 1)))
                hash_ = data.draw(mostly(st.just(hash_), st.sampled_from([block.hash for block in blocks])))
                event("final " + (answer := model.finalize(hash_, height)).verdict)
                outcome = lasting.finalize(hash_, height)
                check(outcome, answer)
                assert restarted.finalize(hash_, height) == outcome
            case 1 if model.canonical:
                undone = data.draw(mostly(st.integers(0, 3), st.integers(0, 20)))
                orphans = list(model.canonical[len(model.canonical) - min(undone, len(model.canonical)) :])
                from_height = model.height[model.canonical[-1]] + data.draw(mostly(st.just(0), st.integers(-1, 1)))
                to_height = from_height - undone + data.draw(mostly(st.just(0), st.integers(-20, 20)))
                if rules.holes and orphans:
                    to_height = model.height[orphans[0]] - data.draw(st.integers(0, 2))
                match data.draw(st.integers(0, 9)):
                    case 0:
                        orphans = orphans[1:]
                    case 1:
                        orphans = orphans[:1] + orphans
                    case 2:
                        orphans.append(data.draw(st.sampled_from(blocks)).hash)
                    case 3:
                        orphans.reverse()
                event("reorg " + (answer := model.reorg(from_height, to_height, orphans)).verdict)
                outcome = lasting.reorg(from_height, to_height, orphans)
                check(outcome, answer)
                assert restarted.reorg(from_height, to_height, orphans) == outcome
        tip = lasting.tracker.tip
        assert (tip.hash if tip else None) == (model.canonical[-1] if model.canonical else None)
        final = lasting.tracker.final
        assert (final.hash if final else None) == (model.canonical[model.final_count - 1] if model.final_count else None)
        assert [orphan for _, orphan in lasting.tracker.state().orphans] == model.waiting
        assert lasting.tracker.state() == restarted.tracker.state()
        base = model.canonical[: max(model.final_count, 1)]
        held = {block.candidate.hash for block in lasting.tracker.state().window}
        assert held == {hash_ for hash_ in model.blocks if model.paths[hash_][: len(base)] == base}
        statistics = lasting.tracker.statistics()
        assert statistics.window == len(held)
        assert statistics.side == len(held - set(model.canonical))
        assert statistics.orphans == len(model.waiting)
