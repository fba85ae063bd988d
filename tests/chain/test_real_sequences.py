"""What real nodes and the public tests of another chain answered to forks, step by step."""

from __future__ import annotations

import json

import pytest

from tests.chain.support import replay_in_memory
from tests.data import needs_data
from tests.vectors import ethereum, regtest


@needs_data
@pytest.mark.parametrize("number", range(regtest.SCENARIOS))
def test_the_tracker_agrees_with_bitcoind_in_every_step(number: int) -> None:
    scenario = regtest.scenario(number)
    assert list(replay_in_memory(scenario.lines)) == scenario.answers


@needs_data
@pytest.mark.parametrize("number", range(regtest.SCENARIOS))
def test_restarts_between_all_steps_change_nothing(number: int) -> None:
    scenario = regtest.scenario(number)
    lines = [scenario.lines[0]]
    for line in scenario.lines[1:]:
        lines += ['{"restart": true}', line]
    answers = list(replay_in_memory(lines))
    assert answers[1::2] == scenario.answers
    assert {answer["input"] for answer in answers[::2]} == {"restart"}


@needs_data
def test_the_scenarios_are_all_there() -> None:
    scenarios = [regtest.scenario(number) for number in range(regtest.SCENARIOS)]
    events = [answer["events"] for scenario in scenarios for answer in scenario.answers]
    assert sum(any(step == "undo" for step, _ in told) for told in events) == 25
    assert sum(scenario.left_out for scenario in scenarios) == 15
    assert len(events) + 15 == 468


@needs_data
@pytest.mark.parametrize("number", range(ethereum.CASES))
def test_the_ethereum_cases_end_at_their_last_block(number: int) -> None:
    case = ethereum.case(number)
    answers = list(replay_in_memory(case.lines))
    assert [answer["events"] for answer in answers] == case.events
    assert answers[-1]["tip"]["hash"] == case.last_block_hash


@needs_data
@pytest.mark.parametrize("number", range(ethereum.CASES))
def test_the_headers_say_what_the_file_says(number: int) -> None:
    case = ethereum.case(number)
    told = json.loads(ethereum.DATA.read_text())["cases"][number]["blocks"]
    expected = [(block["hash"], block["parent"], block["number"], block["difficulty"]) for block in told]
    assert [tuple(json.loads(line).values()) for line in case.lines[1:]] == expected
