"""The replay over a real store answers as the tracker alone does, and as real nodes did."""

from __future__ import annotations

import json
import tempfile
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt.chain.vectors import VectorError
from supervm_rt.errors import StoreError
from supervm_rt.store import replay
from tests.chain.support import replay_in_memory
from tests.data import needs_data
from tests.vectors import ethereum, regtest


def lines_of(seed: int, count: int, setup: dict[str, object]) -> list[str]:
    """A set-up and random inputs that mostly fit it, with strange ids, restarts, and statements that are right or wrong."""
    random = Random(seed)
    tree = [("a0", 10)]
    made: list[dict[str, object]] = [setup]
    blocks: list[dict[str, object]] = []
    while len(made) <= count:
        parent, height = tree[-1 - min(int(random.expovariate(0.8)), len(tree) - 1)]
        match random.randint(0, 15):
            case 0:
                made.append({"restart": True})
            case 1:
                made.append({"final": {"hash": parent, "height": height + random.choice([0, 0, 0, 1])}})
            case 2:
                down = random.randint(0, 3)
                orphans = [name for name, _ in tree[len(tree) - down :]][::-1]
                made.append({"reorg": {"from_height": tree[-1][1], "to_height": tree[-1][1] - down, "orphans": orphans}})
            case 3 | 4 if blocks:
                made.append(random.choice(blocks))
            case 5 if blocks:
                made.append(
                    {**random.choice(blocks), random.choice(["weight", "height"]): random.choice([-1, 0, 3, 2**63, 2**256])}
                )
            case _:
                name = random.choice(["b", "é", "\udc80", "", "0x"]) + str(len(tree))
                block: dict[str, object] = {"hash": name, "parent": parent, "height": height + 1, "weight": random.randint(1, 3)}
                if random.random() < 0.1:
                    block["final_height"] = height + random.randint(-4, 3)
                tree.append((name, height + 1))
                blocks.append(block)
                if random.random() > 0.15:
                    made.append(block)
    return [json.dumps(one) for one in made]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    setup=st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["follow", "longest", "heaviest"]),
            "root": st.sampled_from([None, {"hash": "a0", "height": 10}]),
            "final_depth": st.sampled_from([None, None, 0, 2, 10**18]),
            "orphans": st.sampled_from([0, 1, 3, 50]),
            "holes": st.booleans(),
        }
    ),
)
def test_the_store_answers_as_the_tracker_alone(seed: int, setup: dict[str, object]) -> None:
    lines = lines_of(seed, 60, setup)
    assert list(replay(lines)) == list(replay_in_memory(lines))


@needs_data
@pytest.mark.parametrize("number", range(regtest.SCENARIOS))
def test_the_store_agrees_with_bitcoind_in_every_step(number: int) -> None:
    scenario = regtest.scenario(number)
    assert list(replay(scenario.lines)) == scenario.answers


@needs_data
@pytest.mark.parametrize("number", range(ethereum.CASES))
def test_the_ethereum_cases_end_at_their_last_block(number: int) -> None:
    case = ethereum.case(number)
    answers = list(replay(case.lines))
    assert [answer["events"] for answer in answers] == case.events
    assert answers[-1]["tip"]["hash"] == case.last_block_hash


def test_an_unreadable_line_ends_the_replay_after_the_answers_before_it() -> None:
    lines = ['{"mode": "longest"}', '{"hash": "a", "parent": "x", "height": 1}', "nonsense"]
    answers = replay(lines)
    assert next(answers)["verdict"] == "accepted"
    with pytest.raises(VectorError, match="line 3"):
        next(answers)
    with pytest.raises(VectorError):
        next(replay([]))


def test_the_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines = lines_of(1, 20, {"mode": "heaviest", "root": {"hash": "a0", "height": 10}})
    answers = replay(lines)
    next(answers)
    assert list(tmp_path.iterdir())
    answers.close()  # type: ignore[attr-defined]  # a generator
    assert not list(tmp_path.iterdir())
    assert len(list(replay(lines))) == 20
    assert not list(tmp_path.iterdir())


def test_many_lines_are_replayed_as_they_come() -> None:
    """The input is an endless stream: nothing waits for its end."""

    def endless() -> object:
        yield '{"mode": "heaviest", "root": {"hash": "0", "height": 0}, "final_depth": 5}'
        for height in iter(range(1, 10**9)):
            yield json.dumps({"hash": str(height), "parent": str(height - 1), "height": height, "weight": 1})

    answers = list(islice(replay(endless()), 5000))  # type: ignore[arg-type]
    assert answers[-1]["events"] == [["new", "5000"], ["final", "4994"]]


def test_a_temporary_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="cannot make a temporary folder for the replay"):
        list(replay(['{"mode": "follow", "final_depth": null, "orphans": 0}']))
