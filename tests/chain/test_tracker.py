"""Every rule of the fork tracker, told with short ids. ``+b`` is new, ``-b`` undone, ``!b`` final; the root is at height 10."""

from __future__ import annotations

from itertools import pairwise

import pytest

from supervm_rt.chain.tracker import MAX_HEIGHT, MAX_WEIGHT, ForkTracker
from supervm_rt.chain.types import Candidate, ForkRules, ForkState, WindowBlock
from supervm_rt.model.chain import BlockRef, ForkMode, Reason
from tests.chain.support import MemoryChain, Story

FOLLOW, LONGEST, HEAVIEST = ForkMode.FOLLOW, ForkMode.LONGEST, ForkMode.HEAVIEST
EVERY_MODE = pytest.mark.parametrize("mode", list(ForkMode))


# The root


@EVERY_MODE
def test_a_given_root_is_tip_and_final_without_an_event(mode: ForkMode) -> None:
    story = Story(mode)
    assert story.tip == story.last_final == "root@10"
    assert story.block("a", "root") == "+a"


def test_a_given_root_sent_as_a_block_is_a_duplicate_whatever_is_said_beside_its_height() -> None:
    story = Story(final_depth=0)
    assert story.block("root", "anything", height=10, weight=77) == "duplicate"
    assert story.block("root", "anything", height=11) == "conflict"
    assert story.line("root", "a", "b") == "+b !a"  # from here on the archive alone knows the root
    assert story.block("root", "anything", height=10, weight=77) == "duplicate"
    assert story.block("root", "anything", height=11) == "conflict"


@EVERY_MODE
def test_without_a_root_the_first_block_becomes_it_and_is_not_final(mode: ForkMode) -> None:
    story = Story(mode, root=None)
    assert story.tip == story.last_final == ""
    assert story.block("a", "unknown", height=700) == "+a"
    assert story.tip == "a@700"
    assert story.last_final == ""
    assert story.final("a") == "!a"
    assert story.last_final == "a@700"


def test_the_first_block_is_final_where_it_says_so() -> None:
    assert Story(root=None).block("a", "unknown", height=7, final_height=7) == "+a !a"
    assert Story(root=None).block("a", "unknown", height=7, final_height=6) == "+a"


def test_the_first_block_must_state_its_height() -> None:
    story = Story(root=None)
    assert story.block("a", "unknown", unstated=True) == "malformed"
    assert story.tip == ""
    assert story.block("a", "unknown", height=0) == "+a"


def test_the_parent_of_the_first_block_stays_unknown() -> None:
    story = Story(root=None)
    story.block("a", "unknown", height=7)
    assert story.block("unknown", "before", height=6) == "orphan"
    assert story.block("unknown", "a", height=8) == "conflict"
    assert story.block("sibling", "unknown", height=7) == "orphan"


def test_a_root_is_given_once_and_at_a_height() -> None:
    chain = MemoryChain(ForkRules(HEAVIEST, None, 0), BlockRef(b"root", 1))
    with pytest.raises(ValueError, match="has a root already"):
        chain.tracker.set_root(BlockRef(b"other", 1))
    with pytest.raises(ValueError, match="height"):
        MemoryChain(ForkRules(HEAVIEST, None, 0), BlockRef(b"root", -1))


# Which tip


def test_heaviest_takes_the_most_weight_not_the_most_blocks() -> None:
    story = Story(HEAVIEST)
    assert story.line("root", "a", "b", "c") == "+c"
    assert story.block("x", "root", weight=3) == ""
    assert story.block("y", "x", weight=1) == "-c -b -a +x +y"
    assert story.block("d", "c", weight=1) == ""
    assert story.block("e", "d", weight=1) == "-y -x +a +b +c +d +e"


def test_longest_takes_the_highest_and_ignores_weight() -> None:
    story = Story(LONGEST)
    assert story.block("a", "root", weight=1) == "+a"
    assert story.block("x", "root", weight=1000) == ""
    assert story.block("y", "x", weight=0) == "-a +x +y"


def test_longest_counts_heights_where_slots_are_skipped() -> None:
    story = Story(LONGEST, holes=True)
    assert story.line("root", "a", "b") == "+b"
    assert story.block("x", "root", height=15) == "-b -a +x"


def test_follow_takes_what_came_last() -> None:
    story = Story(FOLLOW)
    assert story.line("root", "a", "b", "c", weight=100) == "+c"
    assert story.block("x", "a", weight=0) == "-c -b +x"
    assert story.tip == "x@12"


@pytest.mark.parametrize("mode", [LONGEST, HEAVIEST])
def test_the_first_seen_wins_a_tie(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b")
    assert story.line("root", "x", "y") == ""
    assert story.tip == "b@12"


@pytest.mark.parametrize("mode", [LONGEST, HEAVIEST])
def test_among_orphans_that_connect_at_once_the_first_seen_wins_a_tie(mode: ForkMode) -> None:
    story = Story(mode)
    story.block("y", "a", height=12)
    story.block("x", "a", height=12)
    assert story.block("a", "root") == "+a +y"


@EVERY_MODE
def test_all_waiting_descendants_connect_with_one_switch(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "x", "y")
    for name, parent, height in (("d", "c", 14), ("b", "a", 12), ("c", "b", 13), ("b2", "a", 12)):
        assert story.block(name, parent, height=height) == "orphan"
    switch = "-y -x +a +b2" if mode is FOLLOW else "-y -x +a +b +c +d"
    assert story.block("a", "root") == switch
    assert [connected.block.hash for connected in story.outcome.connected] == [b"a", b"b", b"b2", b"c", b"d"]


def test_follow_ends_at_the_end_of_a_chain_of_orphans() -> None:
    story = Story(FOLLOW)
    for name, parent, height in (("c", "b", 13), ("b", "a", 12)):
        assert story.block(name, parent, height=height) == "orphan"
    assert story.block("a", "root") == "+a +b +c"


def test_follow_takes_a_side_block_that_is_sent_again_as_canonical_again() -> None:
    story = Story(FOLLOW)
    story.line("root", "a", "b", "c")
    assert story.block("x", "root") == "-c -b -a +x"
    assert story.block("b", "a") == "-x +a +b"
    assert story.outcome.connected == ()
    assert story.block("a", "root") == "duplicate"
    assert story.tip == "b@12"
    assert story.block("c", "b", final_height=11) == "+c !a"
    assert story.outcome.cut == (b"x",)


@pytest.mark.parametrize("mode", [LONGEST, HEAVIEST])
def test_a_side_block_sent_again_is_a_duplicate_in_the_other_modes(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b")
    story.block("x", "root")
    assert story.block("x", "root") == "duplicate"


# Known ids


@EVERY_MODE
def test_the_same_block_again_is_a_duplicate_and_another_under_its_id_a_conflict(mode: ForkMode) -> None:
    story = Story(mode, final_depth=1)
    story.line("root", "a", "b", "c")
    story.block("waiting", "unknown", height=14)
    assert story.last_final == "a@11"
    for name, parent in (("a", "root"), ("b", "a"), ("c", "b"), ("waiting", "unknown")):
        assert story.block(name, parent) == "duplicate"
        assert story.block(name, parent, unstated=True) == "duplicate"
        assert story.block(name, parent, final_height=3) == "duplicate"
        assert story.block(name, "other") == "conflict"
        assert story.block(name, parent, weight=2) == ("duplicate" if mode is LONGEST else "conflict")
        assert story.block(name, parent, height=20) == "conflict"
        assert story.block(name, parent, content=b"twin") == "conflict"
    assert story.tip == "c@13"


@EVERY_MODE
def test_a_conflict_does_not_hurt_the_true_block(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b")
    story.block("b", "root")
    assert story.block("c", "b") == "+c"


@EVERY_MODE
def test_what_finality_cut_off_stays_known(mode: ForkMode) -> None:
    story = Story(mode)
    story.block("x", "root")
    story.line("root", "a", "b")
    story.final("b") if mode is FOLLOW else story.told(story.chain.block(Candidate(b"c", b"b", 13, 1, 12)))
    assert story.block("x", "root") == "duplicate"
    assert story.block("x", "root", weight=2) == ("duplicate" if mode is LONGEST else "conflict")
    assert story.block("y", "x") == "below-final"


# Refusals, and their order


def test_malformed_comes_before_all_else() -> None:
    story = Story()
    assert story.block("a", "a", weight=-1) == "malformed"
    assert story.block("a", "root", weight=MAX_WEIGHT + 1) == "malformed"
    assert story.block("a", "root", height=-1) == "malformed"
    assert story.block("a", "root", height=MAX_HEIGHT + 1) == "malformed"
    assert story.block("a", "root", final_height=-1) == "malformed"
    assert story.block("a", "root", height=11, weight=MAX_WEIGHT) == "+a"
    assert story.block("b", "a", weight=MAX_WEIGHT) == "+b"


def test_a_block_with_itself_as_parent_is_refused_also_where_its_id_is_known() -> None:
    story = Story()
    story.block("a", "root")
    assert story.block("a", "a") == "self-parent"
    assert story.block("n", "n") == "self-parent"
    assert story.block("root", "root", height=10) == "self-parent"
    assert story.chain.tracker.statistics().orphans == 0


def test_a_loop_of_orphans_waits_for_ever_and_connects_never() -> None:
    story = Story()
    assert story.block("a", "b", height=12) == "orphan"
    assert story.block("b", "a", height=13) == "orphan"
    assert story.block("b", "root", height=11) == "conflict"
    assert story.block("c", "root") == "+c"


@EVERY_MODE
def test_a_parent_below_final_is_refused_before_the_height_is_looked_at(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b")
    story.final("b")
    assert story.block("x", "a", height=99) == "below-final"
    assert story.block("x", "root") == "below-final"
    assert story.block("x", "b", height=99) == "height"
    assert story.block("x", "b") == "+x"


@EVERY_MODE
def test_the_last_final_block_is_a_parent_like_any_other(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b")
    story.final("a")
    assert story.block("x", "a") == ("-b +x" if mode is FOLLOW else "")
    assert story.block("y", "x") == ("+y" if mode is FOLLOW else "-b +x +y")


@EVERY_MODE
@pytest.mark.parametrize(("height", "answer"), [(10, "height"), (11, "height"), (12, "+b"), (13, "height")])
def test_without_holes_a_height_is_one_above_the_parents(mode: ForkMode, height: int, answer: str) -> None:
    story = Story(mode)
    story.block("a", "root")
    assert story.block("b", "a", height=height) == answer


@EVERY_MODE
@pytest.mark.parametrize(("height", "answer"), [(10, "height"), (11, "height"), (12, "+b"), (500, "+b")])
def test_with_holes_a_height_is_above_the_parents(mode: ForkMode, height: int, answer: str) -> None:
    story = Story(mode, holes=True)
    story.block("a", "root")
    assert story.block("b", "a", height=height) == answer


def test_a_height_that_is_not_stated_follows_from_the_parent() -> None:
    story = Story()
    assert story.block("b", "a", unstated=True) == "orphan"
    assert story.block("a", "root", unstated=True) == "+a +b"
    assert story.tip == "b@12"
    assert Story(holes=True).block("a", "root", unstated=True) == "malformed"


def test_no_block_lies_above_the_highest_height() -> None:
    story = Story(root=("root", MAX_HEIGHT))
    assert story.block("a", "root", unstated=True) == "height"
    assert story.block("a", "root", height=MAX_HEIGHT) == "height"


@EVERY_MODE
def test_a_refused_block_can_come_again_and_be_right(mode: ForkMode) -> None:
    story = Story(mode)
    assert story.block("a", "root", height=12) == "height"
    assert story.chain.tracker.state() == Story(mode).chain.tracker.state()
    assert story.block("a", "root", height=11, weight=5) == "+a"


# Orphans


@EVERY_MODE
def test_the_oldest_orphan_is_evicted_first(mode: ForkMode) -> None:
    story = Story(mode, orphans=2)
    for name, parent, height in (("b", "a", 12), ("c", "b", 13)):
        assert story.block(name, parent, height=height) == "orphan"
        assert not story.outcome.evicted
    assert story.block("d", "c", height=14) == "orphan"
    assert story.outcome.evicted == (b"b",)
    assert story.block("a", "root") == "+a"
    assert story.block("b", "a") == "+b +c +d"


@EVERY_MODE
def test_with_no_room_for_orphans_they_are_dropped(mode: ForkMode) -> None:
    story = Story(mode, orphans=0)
    for _ in range(2):
        assert story.block("b", "a", height=12) == "orphan"
        assert story.outcome.evicted == ()
    assert story.block("a", "root") == "+a"
    assert story.block("b", "a") == "+b"


def test_a_lowered_limit_evicts_with_the_next_orphan() -> None:
    story = Story(orphans=3)
    for name in ("b", "c", "d"):
        story.block(name, "unknown", height=12)
    story.chain.rules = ForkRules(HEAVIEST, None, 2)
    story.chain.restart()
    story.block("e", "unknown", height=12)
    assert story.outcome.evicted == (b"b", b"c")
    story.chain.rules = ForkRules(HEAVIEST, None, 0)
    story.chain.restart()
    assert story.block("f", "unknown", height=12) == "orphan"
    assert story.outcome.evicted == (b"d", b"e")
    assert story.chain.tracker.statistics().orphans == 0


def test_an_orphan_that_does_not_fit_its_parent_is_forgotten_and_its_children_wait_on() -> None:
    story = Story()
    story.block("b", "a", height=13)
    story.block("c", "b", height=14)
    assert story.block("a", "root") == "+a"
    assert [(refused.hash, refused.reason) for refused in story.outcome.refused] == [(b"b", Reason.HEIGHT)]
    assert story.chain.tracker.statistics().orphans == 1
    story.heights["b"] = 12
    assert story.block("b", "a", height=12) == "+b"
    assert [refused.hash for refused in story.outcome.refused] == [b"c"]


def test_a_very_long_chain_of_orphans_connects_at_once() -> None:
    story = Story(orphans=20_000)
    names = ["root", *(f"b{number}" for number in range(20_000))]
    for height, (parent, name) in reversed(list(enumerate(pairwise(names), start=11))[1:]):
        assert story.block(name, parent, height=height) == "orphan"
    assert len(story.block("b0", "root").split()) == 20_000
    assert story.tip == "b19999@20010"


def test_orphans_are_left_alone_by_finality() -> None:
    story = Story()
    story.block("y", "x", height=12)
    story.line("root", "a", "b")
    assert story.final("b") == "!a !b"
    assert story.block("x", "root", height=11) == "below-final"
    assert story.chain.tracker.statistics().orphans == 1


# States


def test_rules_with_negative_bounds_are_a_mistake() -> None:
    for rules in (ForkRules(HEAVIEST, -1, 0), ForkRules(HEAVIEST, None, -1)):
        with pytest.raises(ValueError, match="negative"):
            MemoryChain(rules)


def test_a_state_that_contradicts_itself_is_refused() -> None:
    def held(name: bytes, parent: bytes, height: int) -> WindowBlock:
        return WindowBlock(Candidate(name, parent, height, 1), height, height)

    window = (held(b"a", b"", 1), held(b"b", b"a", 2))
    for state, complaint in (
        (ForkState(window=window), "tip"),
        (ForkState(window=window, tip=b"z"), "tip"),
        (ForkState(window=window, tip=b"b", final=BlockRef(b"b", 2)), "final"),
        (ForkState(window=(*window, held(b"d", b"c", 3)), tip=b"b"), "tree"),
        (ForkState(window=(*window, window[1]), tip=b"b"), "tree"),
        (ForkState(tip=b"b"), "no window"),
        (ForkState(orphans=((0, Candidate(b"o", b"p", 1, 1)),)), "no window"),
    ):
        with pytest.raises(ValueError, match=complaint):
            ForkTracker(ForkRules(HEAVIEST, None, 0), state, lambda _: None)


def test_a_lowered_final_depth_takes_effect_with_the_next_block() -> None:
    story = Story()
    story.line("root", "a", "b", "c")
    story.chain.rules = ForkRules(HEAVIEST, 1, 10)
    story.chain.restart()
    assert story.block("d", "c") == "+d !a !b"
