"""Reorg sequences as text: what is read, what is refused and how, and what is answered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.chain.types import Candidate, ForkRules
from supervm_rt.chain.vectors import (
    BlockInput,
    FinalInput,
    Malformed,
    ReorgInput,
    RestartInput,
    VectorError,
    VectorInput,
    VectorSetup,
    id_from_text,
    parse_input,
    parse_setup,
    read_vectors,
    text_from_id,
)
from supervm_rt.model.chain import BlockRef, ForkMode, Reason
from tests.chain.support import replay_in_memory

SETUP = VectorSetup(ForkRules(ForkMode.HEAVIEST, None, 0), BlockRef(b"a0", 10))
BLOCK = {"hash": "b1", "parent": "a0", "height": 11, "weight": 2}


def read(value: object) -> VectorInput:
    return parse_input(value if isinstance(value, str) else json.dumps(value), 7, SETUP)


def test_the_example_of_the_format() -> None:
    lines = [
        '{"mode": "heaviest", "root": {"hash": "a0", "height": 10}, "final_depth": null, "orphans": 0}',
        '{"hash": "b1", "parent": "a0", "height": 11, "weight": 2}',
        '{"hash": "c2", "parent": "b9", "height": 12, "weight": 2, "final_height": 11}',
        '{"final": {"hash": "b1", "height": 11}}',
        '{"reorg": {"from_height": 12, "to_height": 11, "orphans": ["c2"]}}',
        '{"restart": true}',
    ]
    tip = {"hash": "b1", "height": 11}
    assert list(replay_in_memory(lines)) == [
        {"input": "b1", "verdict": "accepted", "events": [["new", "b1"]], "tip": tip},
        {"input": "c2", "verdict": "orphan", "events": [], "tip": tip},
        {"input": "final", "verdict": "accepted", "events": [["final", "b1"]], "tip": tip},
        {"input": "reorg", "verdict": "rejected", "reason": "not-canonical", "events": [], "tip": tip},
        {"input": "restart", "verdict": "accepted", "events": [], "tip": tip},
    ]


def test_without_a_root_there_is_no_tip_before_the_first_block() -> None:
    answers = list(replay_in_memory(['{"mode": "follow"}', '{"restart": true}', "{}", json.dumps(BLOCK)]))
    assert answers == [
        {"input": "restart", "verdict": "accepted", "events": [], "tip": None},
        {"input": None, "verdict": "rejected", "reason": "malformed", "events": [], "tip": None},
        {"input": "b1", "verdict": "accepted", "events": [["new", "b1"]], "tip": {"hash": "b1", "height": 11}},
    ]


def test_the_order_of_events_is_undo_new_final() -> None:
    lines = [
        '{"mode": "follow", "root": {"hash": "r", "height": 0}, "final_depth": 1}',
        *(json.dumps({"hash": name, "parent": parent, "height": 1, "weight": 0}) for name, parent in (("a", "r"), ("x", "r"))),
        json.dumps({"hash": "b", "parent": "a", "height": 2, "weight": 0, "final_height": 2}),
    ]
    *_, last = replay_in_memory(lines)
    assert last["events"] == [["undo", "x"], ["new", "a"], ["new", "b"], ["final", "a"], ["final", "b"]]


def test_the_setup_has_defaults() -> None:
    assert parse_setup('{"mode": "longest"}') == VectorSetup(ForkRules(ForkMode.LONGEST, None, 0, holes=False), None)
    full = '{"mode": "follow", "root": {"hash": "", "height": 0}, "final_depth": 0, "orphans": 3, "holes": true}'
    assert parse_setup(full) == VectorSetup(ForkRules(ForkMode.FOLLOW, 0, 3, holes=True), BlockRef(b"", 0))
    assert parse_setup('{"mode": "follow", "root": null, "final_depth": null}').root is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "mode is missing"),
        ('{"mode": "best"}', "mode is 'best'"),
        ('{"mode": 1}', "mode is not a string"),
        ('{"mode": "follow", "mode": "longest"}', "mode stands there twice"),
        ('{"mode": "follow", "final-depth": 1}', "no setting 'final-depth'"),
        ('{"mode": "follow", "final_depth": -1}', "final_depth is not between"),
        ('{"mode": "follow", "final_depth": 1.0}', "final_depth is not a whole number"),
        ('{"mode": "follow", "final_depth": true}', "final_depth is not a whole number"),
        ('{"mode": "follow", "orphans": null}', "orphans is not a whole number"),
        ('{"mode": "follow", "orphans": -1}', "orphans is not between"),
        ('{"mode": "follow", "holes": 1}', "holes is neither"),
        ('{"mode": "follow", "root": "a0"}', "root is not an object"),
        ('{"mode": "follow", "root": {"hash": "a0"}}', "height is missing"),
        ('{"mode": "follow", "root": {"hash": "a0", "height": -1}}', "height is not between"),
        ('{"mode": "follow", "root": {"hash": 1, "height": 1}}', "hash is not a string"),
        ('{"mode": "follow", "root": {"hash": "a", "hash": "b", "height": 1}}', "hash stands there twice"),
    ],
)
def test_a_wrong_setup_ends_the_replay_and_says_how_to_write_it(line: str, complaint: str) -> None:
    with pytest.raises(VectorError, match=complaint) as caught:
        parse_setup(line, 3)
    assert "line 3" in caught.value.message
    assert caught.value.remedy
    assert caught.value.blame == "operator"


def test_an_empty_file_has_no_setup() -> None:
    with pytest.raises(VectorError, match="line 1"):
        read_vectors([])


def test_blank_lines_are_passed_over_and_lines_are_numbered_as_they_stand() -> None:
    setup, inputs = read_vectors(["\n", '{"mode": "follow"}\n', "\n", '{"restart": true}\n', "  \n", "nonsense\n"])
    assert setup.rules.mode is ForkMode.FOLLOW
    assert next(inputs) == RestartInput()
    with pytest.raises(VectorError, match="line 6 is not JSON"):
        next(inputs)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "", "[]", "1", "null", '"b1"', '{"hash": "b1"', '{"a": NaN}', '{"a": -Infinity}', "[" * 100_000, "\ufeff{}"],
)
def test_a_line_that_is_no_object_ends_the_replay(line: str) -> None:
    with pytest.raises(VectorError, match="line 7 is not") as caught:
        parse_input(line, 7, SETUP)
    assert caught.value.remedy


def test_inputs_are_read() -> None:
    assert read(BLOCK) == BlockInput(Candidate(b"b1", b"a0", 11, 2))
    assert read({**BLOCK, "final_height": 9}) == BlockInput(Candidate(b"b1", b"a0", 11, 2, 9))
    assert read({**BLOCK, "final_height": None}) == read(BLOCK)
    assert read({**BLOCK, "note": [1, {"a": 2}]}) == read(BLOCK)
    assert read({"final": {"hash": "b1", "height": 11}}) == FinalInput(b"b1", 11)
    assert read({"reorg": {"from_height": 3, "to_height": 1, "orphans": ["x", "y"]}}) == ReorgInput(3, 1, (b"x", b"y"))
    assert read({"restart": True}) == RestartInput()


WRONG: list[tuple[str | dict[str, Any], str | None, str]] = [
    ({}, None, "one of hash, final, reorg and restart"),
    ({"parent": "a0", "height": 11, "weight": 2}, None, "one of hash"),
    ({"hash": "b1", "height": 11, "weight": 2}, "b1", "parent is missing"),
    ({"hash": "b1", "parent": "a0", "weight": 2}, "b1", "height is missing"),
    ({"hash": "b1", "parent": "a0", "height": 11}, "b1", "weight is missing"),
    ({**BLOCK, "hash": 1}, None, "hash is not a string"),
    ({**BLOCK, "hash": None}, None, "hash is not a string"),
    ({**BLOCK, "parent": None}, "b1", "parent is not a string"),
    ({**BLOCK, "height": None}, "b1", "height is not a whole number"),
    ({**BLOCK, "height": "11"}, "b1", "height is not a whole number"),
    ({**BLOCK, "height": True}, "b1", "height is not a whole number"),
    ({**BLOCK, "height": 11.0}, "b1", "height is not a whole number"),
    ({**BLOCK, "weight": 1e3}, "b1", "weight is not a whole number"),
    ({**BLOCK, "final_height": "9"}, "b1", "final_height is not a whole number"),
    ('{"hash": "b1", "parent": "a0", "height": 11, "weight": 2' + 10_000 * "0" + "}", "b1", "weight is not a whole number"),
    ('{"hash": "b1", "parent": "a0", "height": 11, "height": 11, "weight": 2}', "b1", "height stands there twice"),
    ({**BLOCK, "final": {"hash": "b1", "height": 11}}, "b1", "one of hash"),
    ({"final": {"hash": "b1", "height": 11}, "restart": True}, "final", "one of hash"),
    ({"final": "b1"}, "final", "final is not an object"),
    ({"final": {"hash": "b1"}}, "final", "height is missing"),
    ({"final": {"hash": "b1", "height": -1}}, "final", "height is not between"),
    ('{"final": {"hash": "b1", "height": 1, "height": 1}}', "final", "height stands there twice"),
    ({"reorg": []}, "reorg", "reorg is not an object"),
    ({"reorg": {"from_height": 3, "to_height": 1}}, "reorg", "orphans is missing"),
    ({"reorg": {"from_height": 3, "to_height": 1, "orphans": "x"}}, "reorg", "orphans is not a list"),
    ({"reorg": {"from_height": 3, "to_height": 1, "orphans": [1]}}, "reorg", "orphans is not a list"),
    ({"reorg": {"from_height": 3, "to_height": False, "orphans": []}}, "reorg", "to_height is not a whole number"),
    ({"restart": False}, "restart", "restart is not true"),
    ({"restart": 1}, "restart", "restart is not true"),
]


@pytest.mark.parametrize(("value", "name", "complaint"), WRONG)
def test_an_object_that_is_no_input_is_malformed(value: str | dict[str, Any], name: str | None, complaint: str) -> None:
    told = read(value)
    assert isinstance(told, Malformed)
    assert told.name == name
    assert complaint in told.detail
    assert told.outcome.reason is Reason.MALFORMED


@pytest.mark.parametrize("value", [{**BLOCK, "weight": -1}, {**BLOCK, "weight": 2**256 + 1}, {**BLOCK, "height": -1}])
def test_numbers_out_of_range_are_malformed_too(value: dict[str, Any]) -> None:
    setup = '{"mode": "heaviest", "root": {"hash": "a0", "height": 10}}'
    (answer,) = replay_in_memory([setup, json.dumps(value)])
    assert (answer["verdict"], answer["reason"]) == ("rejected", "malformed")


@pytest.mark.parametrize("mode", [ForkMode.LONGEST, ForkMode.FOLLOW])
def test_only_the_heaviest_mode_needs_weights(mode: ForkMode) -> None:
    line = json.dumps({"hash": "b1", "parent": "a0", "height": 11})
    assert parse_input(line, 2, VectorSetup(ForkRules(mode, None, 0), None)) == BlockInput(Candidate(b"b1", b"a0", 11, 0))
    assert isinstance(parse_input(line, 2, SETUP), Malformed)


@pytest.mark.parametrize("weight", [5, -1, "x", None, 2**300])
def test_the_longest_mode_ignores_weights_whatever_they_are(weight: object) -> None:
    line = json.dumps({"hash": "b1", "parent": "a0", "height": 11, "weight": weight})
    longest = VectorSetup(ForkRules(ForkMode.LONGEST, None, 0), None)
    assert parse_input(line, 2, longest) == BlockInput(Candidate(b"b1", b"a0", 11, 0))


@given(st.text(st.characters()))
def test_ids_are_any_string_and_come_back_unchanged(text: str) -> None:
    setup = json.dumps({"mode": "follow"})
    block = json.dumps({"hash": text, "parent": text + "'s parent", "height": 3, "weight": 1})
    read_text = json.loads(json.dumps(text))  # two halves of a surrogate pair become one character
    (answer,) = replay_in_memory([setup, block])
    assert answer["input"] == answer["events"][0][1] == answer["tip"]["hash"] == read_text
    assert text_from_id(id_from_text(text)) == read_text


SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_value_anywhere_is_read_or_refused(value: object) -> None:
    for field in ("hash", "parent", "height", "weight", "final_height"):
        assert isinstance(read({**BLOCK, field: value}), BlockInput | Malformed)
    for field in ("final", "reorg", "restart"):
        assert isinstance(read({field: value}), Malformed | RestartInput)
