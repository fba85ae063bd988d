"""Work and memory per block follow the window and what happens in it, never the length of the chain.

Work is counted in lines and calls that Python runs through, which are the same on every machine and in every run, and in calls to
the archive.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from supervm_rt.chain.types import Candidate, ForkRules, Outcome
from supervm_rt.model.chain import BlockRef, ForkMode, Step
from tests.chain.support import MemoryChain


def counted(work: Callable[[], Outcome]) -> tuple[Outcome, int]:
    """The outcome of some work, and how many lines and calls it ran through."""
    steps = 0

    def count(_frame: FrameType, _what: str, _argument: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    gc.disable()  # what a collection calls back would be counted too
    sys.settrace(count)
    try:
        outcome = work()
    finally:
        sys.settrace(before)
        gc.enable()
    return outcome, steps


def block(branch: str, height: int, parent: bytes, weight: int = 1) -> Candidate:
    return Candidate(f"{branch}{height}".encode(), parent, height, weight)


def grown(length: int, final_depth: int | None, mode: ForkMode = ForkMode.HEAVIEST) -> MemoryChain:
    chain = MemoryChain(ForkRules(mode, final_depth, 100), BlockRef(b"a0", 0))
    for height in range(1, length + 1):
        chain.block(block("a", height, f"a{height - 1}".encode()))
    return chain


def side_branch(chain: MemoryChain, depth: int) -> Candidate:
    """Adds a side branch as heavy as the canonical one above its parent; returns the block that makes it heavier."""
    assert chain.tracker.tip is not None
    fork = chain.tracker.tip.height - depth
    parent = f"a{fork}".encode()
    for height in range(fork + 1, fork + depth + 1):
        side = block("s", height, parent)
        assert chain.block(side).events == ()
        parent = side.hash
    return block("s", fork + depth + 1, parent)


@pytest.mark.parametrize("depth", [1, 10])
def test_a_reorg_costs_its_depth_not_the_window(depth: int) -> None:
    costs = []
    for window in (1_000, 20_000):
        chain = grown(window, None)
        assert chain.tracker.statistics().window == window + 1
        last = side_branch(chain, depth)
        chain.archive_calls = 0
        outcome, steps = counted(lambda chain=chain, last=last: chain.tracker.block(last))  # type: ignore[misc]
        assert [event.step for event in outcome.events] == [Step.UNDO] * depth + [Step.NEW] * (depth + 1)
        costs.append((steps, chain.archive_calls))
    assert costs[0] == costs[1]
    assert costs[0][0] > 0


@pytest.mark.parametrize("mode", list(ForkMode))
@pytest.mark.parametrize("final_depth", [None, 50])
def test_a_block_costs_the_same_however_long_the_chain_is(mode: ForkMode, final_depth: int | None) -> None:
    costs = []
    for length in (1_000, 20_000):
        chain = grown(length, final_depth, mode)
        following = block("a", length + 1, f"a{length}".encode())
        chain.archive_calls = 0
        outcome, steps = counted(lambda chain=chain, following=following: chain.tracker.block(following))  # type: ignore[misc]
        assert len(outcome.events) == (1 if final_depth is None else 2)
        costs.append((steps, chain.archive_calls))
    assert costs[0] == costs[1]
    assert costs[0][1] == 1


def test_a_statement_of_finality_costs_what_it_makes_final() -> None:
    costs = []
    for window in (1_000, 20_000):
        chain = grown(window, None)
        outcome, steps = counted(lambda chain=chain: chain.tracker.finalize(b"a20", 20))  # type: ignore[misc]
        assert len(outcome.events) == 20
        costs.append(steps)
    assert costs[0] == costs[1]


def test_what_is_final_leaves_the_window() -> None:
    sizes = [grown(length, 100).tracker.statistics().window for length in (1_000, 20_000)]
    assert sizes == [102, 102]  # the tip, the 100 below it, and the last final block
