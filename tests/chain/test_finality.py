"""Every rule of finality and of reorg statements, told as in ``test_tracker``; the root is at height 10."""

from __future__ import annotations

import pytest

from supervm_rt.model.chain import ForkMode
from tests.chain.support import Story

FOLLOW, LONGEST, HEAVIEST = ForkMode.FOLLOW, ForkMode.LONGEST, ForkMode.HEAVIEST
EVERY_MODE = pytest.mark.parametrize("mode", list(ForkMode))


# Finality


@EVERY_MODE
def test_a_block_deeper_than_the_final_depth_is_final(mode: ForkMode) -> None:
    story = Story(mode, final_depth=2)
    story.line("root", "a", "b")
    assert story.block("c", "b") == "+c"
    assert story.block("d", "c") == "+d !a"
    assert story.block("e", "d") == "+e !b"


def test_the_first_block_too_becomes_final_by_depth() -> None:
    story = Story(root=None, final_depth=1)
    story.block("a", "unknown", height=0)
    assert story.block("b", "a") == "+b"
    assert story.block("c", "b") == "+c !a"


def test_at_final_depth_zero_all_below_the_tip_is_final() -> None:
    story = Story(final_depth=0)
    assert story.block("a", "root") == "+a"
    assert story.block("b", "a") == "+b !a"
    assert story.block("x", "root") == "below-final"


def test_depth_counts_blocks_not_heights() -> None:
    story = Story(final_depth=2, holes=True)
    story.block("a", "root", height=100)
    story.block("b", "a", height=200)
    assert story.block("c", "b", height=300) == "+c"
    assert story.block("d", "c", height=301) == "+d !a"


def test_depth_is_counted_from_the_tip_of_a_reorg_also_with_many_at_once() -> None:
    story = Story(final_depth=1)
    story.line("root", "a")
    for name, parent, height in (("y", "x", 12), ("z", "y", 13)):
        story.block(name, parent, height=height)
    assert story.block("x", "root") == "-a +x +y +z !x"
    assert story.outcome.cut == (b"a",)


def test_a_block_can_say_up_to_which_height_the_chain_is_final() -> None:
    story = Story()
    story.line("root", "a", "b", "c")
    assert story.block("d", "c", final_height=12) == "+d !a !b"
    assert story.last_final == "b@12"


def test_what_a_side_block_says_of_finality_counts_once_it_is_canonical() -> None:
    story = Story()
    story.line("root", "a", "b")
    assert story.block("x", "root", final_height=11) == ""
    assert story.last_final == "root@10"
    story.chain.restart()
    assert story.line("x", "y", "z") == "-b -a +x +y +z !x"


def test_a_final_height_above_the_tip_lasts() -> None:
    story = Story()
    assert story.block("a", "root", final_height=13) == "+a !a"
    assert story.chain.tracker.final_claim == 13
    story.chain.restart()
    assert story.block("b", "a") == "+b !b"
    assert story.block("c", "b") == "+c !c"
    assert story.chain.tracker.final_claim is None
    assert story.block("d", "c") == "+d"


def test_a_final_height_may_mean_all_that_will_ever_come() -> None:
    story = Story()
    assert story.block("a", "root", final_height=2**64 - 1) == "+a !a"
    assert story.block("b", "a") == "+b !b"


def test_a_claim_falls_with_its_block() -> None:
    # With holes, the height that b names lies between its parent's and its own; without b nobody says that m is final.
    story = Story(FOLLOW, holes=True)
    story.block("a", "root", height=14)
    assert story.block("b", "a", height=17, final_height=15) == "+b !a"
    assert story.block("m", "a", height=15) == "-b +m"
    assert story.last_final == "a@14"


def test_a_block_sent_again_in_follow_mode_may_say_more_of_finality() -> None:
    story = Story(FOLLOW)
    story.line("root", "a", "b", "c")
    story.block("x", "root")
    assert story.block("b", "a", final_height=13) == "-x +a +b !a !b"
    assert story.tip == story.last_final == "b@12"
    assert story.block("c", "b") == "+c !c"


@EVERY_MODE
def test_a_statement_makes_a_canonical_block_and_all_below_it_final(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b", "c")
    assert story.final("b") == "!a !b"
    assert story.final("b") == ""  # already final, in the window
    assert story.final("a") == ""  # already final, in the archive
    assert story.final("root") == ""
    assert story.final("c") == "!c"


@EVERY_MODE
def test_a_statement_about_anything_but_a_canonical_block_is_refused(mode: ForkMode) -> None:
    story = Story(mode)
    story.block("x", "root")
    story.line("root", "a", "b")
    story.block("waiting", "unknown", height=12)
    for name, height in (("x", 11), ("waiting", 12), ("nobody", 12), ("a", 12), ("root", 11)):
        assert story.final(name, height) == "not-canonical"
    assert story.final("a", -1) == "malformed"
    story.final("b")
    for name, height in (("x", 11), ("a", 12), ("root", 11), ("b", 11)):
        assert story.final(name, height) == "not-canonical"
    assert Story(mode, root=None).final("a", 1) == "not-canonical"


@EVERY_MODE
def test_finality_cuts_off_what_does_not_descend_from_it(mode: ForkMode) -> None:
    story = Story(mode)
    for name, parent in (("x", "root"), ("y", "x"), ("z", "x"), ("w", "y")):
        story.block(name, parent, weight=0)
    for name, parent, weight in (("a", "root", 9), ("s", "a", 0), ("b", "a", 9), ("t", "b", 0), ("c", "b", 9), ("d", "c", 9)):
        story.block(name, parent, weight=weight)
    story.block("e", "d")
    assert story.tip == "e@15"
    story.final("b")
    assert story.outcome.cut == (b"x", b"y", b"z", b"w", b"s")
    window = {held.candidate.hash for held in story.chain.tracker.state().window}
    assert window == {b"b", b"t", b"c", b"d", b"e"}
    assert story.chain.tracker.statistics().side == 1


# Reorg statements


def test_follow_undoes_what_a_reorg_statement_names() -> None:
    story = Story(FOLLOW)
    story.line("root", "a", "b", "c")
    assert story.reorg(13, 11, "b", "c") == "-c -b"
    assert story.tip == "a@11"
    assert story.block("x", "a") == "+x"
    assert story.reorg(12, 10, "x", "a") == "-x -a"
    assert story.reorg(10, 10) == ""
    assert story.block("b", "a") == "+a +b"


@pytest.mark.parametrize("mode", [LONGEST, HEAVIEST])
def test_a_reorg_statement_is_only_checked_in_the_other_modes(mode: ForkMode) -> None:
    story = Story(mode)
    story.line("root", "a", "b", "c")
    assert story.reorg(13, 11, "c", "b") == ""
    assert story.tip == "c@13"
    assert story.reorg(13, 11, "b") == "not-canonical"


@EVERY_MODE
def test_a_reorg_statement_that_does_not_fit_is_refused(mode: ForkMode) -> None:
    story = Story(mode)
    story.block("x", "root")
    story.line("root", "a", "b", "c")
    story.final("a")
    assert story.reorg(11, 13) == "malformed"
    assert story.reorg(-1, -1) == "malformed"
    assert story.reorg(13, -1, "c") == "malformed"
    assert story.reorg(12, 11, "b") == "not-canonical"
    assert story.reorg(14, 12, "c") == "not-canonical"
    assert story.reorg(13, 12) == "not-canonical"
    assert story.reorg(13, 12, "b") == "not-canonical"
    assert story.reorg(13, 12, "c", "c") == "not-canonical"
    assert story.reorg(13, 12, "c", "x") == "not-canonical"
    assert story.reorg(13, 12, "c", "b") == "not-canonical"
    assert story.reorg(13, 10, "c", "b", "a") == "below-final"
    assert story.tip == "c@13"
    assert story.reorg(13, 11, "c", "b") == ("-c -b" if mode is FOLLOW else "")


@EVERY_MODE
def test_a_reorg_statement_leaves_a_block_standing(mode: ForkMode) -> None:
    story = Story(mode, root=None)
    assert story.reorg(5, 4) == "not-canonical"
    story.block("a", "unknown", height=5)
    assert story.reorg(5, 4, "a") == "not-canonical"
    assert story.reorg(5, 5) == ""


def test_a_reorg_statement_may_name_a_skipped_height() -> None:
    story = Story(FOLLOW, holes=True)
    story.block("a", "root", height=20)
    story.block("b", "a", height=30)
    assert story.reorg(30, 19, "b") == "not-canonical"
    assert story.reorg(30, 25, "b") == "-b"
    assert story.reorg(20, 10, "a") == "-a"
