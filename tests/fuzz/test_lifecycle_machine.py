"""The lifecycle machine: nothing diverges, every state is interrupted, and what it finds is named and repeated."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fuzz.lifecycle.lives import check_lives
from fuzz.lifecycle.machine import TransportMachine
from fuzz.lifecycle.puppet import Does, Part, Works, in_use
from fuzz.lifecycle.story import LENGTH, Divergence, Ending, Interruption, Story, make_story, play
from fuzz.lifecycle.walk import CALLS, IN_ORDER, Step, Walk, make_walk, walk
from fuzz.lifecycle.walk import LENGTH as WALK_LENGTH
from fuzz.reorgs.choices import Choices
from supervm_rt import RestartPolicy
from supervm_rt._abi import SLOT_COUNT, slots_in_use
from supervm_rt.runtime.lifecycle import TRANSITIONS, PluginState
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.transports.native.in_process import InProcessTransport
from supervm_rt.trust.policy import Placement

ROOT = Path(__file__).parents[2]
STATES = ("registered", "loading", "loaded", "initialising", "starting", "running", "stopping", "stopped")


def test_zeros_are_the_plainest() -> None:
    assert make_story(Choices(b"")) == Story((Part(),))
    assert [step.call for step in make_walk(Choices(b"")).steps] == list(IN_ORDER)


@pytest.mark.own_process
def test_a_life_can_be_interrupted_at_every_step() -> None:
    met: Counter[str] = Counter()
    for interruption in (Interruption.CANCEL, Interruption.STOP, Interruption.FAIL):
        story = Story((Part(early=3),), interruption=interruption)
        at, steps = 1, 1
        while at <= steps:
            steps = play(replace(story, at=at), met)
            at += 1 if interruption is Interruption.CANCEL else 3
        assert at > 50
    assert {f"{Interruption.CANCEL}, {state}" for state in STATES} <= met.keys()


@pytest.mark.own_process
def test_every_failure_is_named_and_cleaned_up() -> None:
    for part in (
        Part(broken=True),
        Part(manifest=Does.FAILS),
        Part(manifest=Does.DISAGREES),
        Part(init=Does.FAILS, early=3),
        Part(start=Does.FAILS, stop=Does.FAILS),
        Part(stop=Does.FAILS),
        Part(works=Works.GIVES_UP),
        Part(works=Works.ASKS_FOR_SHUTDOWN),
        Part(works=Works.STAYS),
        Part(works=Works.KEEPS_A_RESERVATION),
        Part(constructor=Does.HANGS),
        Part(manifest=Does.HANGS),
        Part(init=Does.HANGS),
        Part(start=Does.HANGS),
        Part(start=Does.WAITS),
        Part(stop=Does.HANGS),
        Part(destructor=Does.HANGS),
    ):
        play(Story((part,)))
        if not part.may_be_abandoned:
            play(Story((part, Part()), ending=Ending.AGAIN))
            play(Story((part,), restart=RestartPolicy.ON_FAILURE))


@pytest.mark.own_process
def test_time_passes_for_no_life_that_was_given_up() -> None:
    """Its call still does not return while the next life begins, whose calls return in time."""
    for part, states in (
        (Part(init=Does.HANGS), {"initialising"}),
        (Part(start=Does.HANGS), {"starting", "stopping"}),
        (Part(stop=Does.HANGS), {"stopping"}),
    ):
        met: Counter[str] = Counter()
        play(Story((part,), ending=Ending.AGAIN), met)
        assert met["state loading"] == met["state abandoned"] == 2
        assert {name for name in met if name.startswith("time passes")} == {f"time passes, {state}" for state in states}


@pytest.mark.own_process
def test_only_what_is_known_to_be_gone_gives_its_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (Step("load"), Step("abandon"))
    play(Story((Part(), Part())))
    walk(Walk(Part(), ()))
    assert in_use == []
    play(Story((Part(init=Does.HANGS),)))
    walk(Walk(Part(), steps))
    for module in ("story", "walk"):
        monkeypatch.setattr(f"fuzz.lifecycle.{module}.check_lives", lambda *_: "planted")
    with pytest.raises(Divergence, match="planted"):
        play(Story((Part(start=Does.HANGS),)))
    with pytest.raises(Divergence, match="planted"):
        walk(Walk(Part(early=3), steps))
    assert [puppet.part for puppet in in_use] == [Part(init=Does.HANGS), Part(), Part(start=Does.HANGS), Part(early=3)]


@pytest.mark.own_process
@pytest.mark.unsanitized  # a sanitizer cannot run confined
def test_every_failure_is_named_and_cleaned_up_in_a_process_of_its_own() -> None:
    for part in (
        Part(broken=True),
        Part(manifest=Does.FAILS),
        Part(init=Does.FAILS, early=3),
        Part(start=Does.FAILS, stop=Does.FAILS),
        Part(works=Works.GIVES_UP),
        Part(works=Works.STAYS),
        Part(works=Works.KEEPS_A_RESERVATION),
        Part(constructor=Does.HANGS),
        Part(manifest=Does.HANGS),
        Part(init=Does.HANGS),
        Part(start=Does.HANGS),
        Part(start=Does.WAITS),
        Part(stop=Does.HANGS),
        Part(destructor=Does.HANGS),
    ):
        play(Story((part,), placement=Placement.CHILD))
        if not part.hangs:
            play(Story((part, Part()), ending=Ending.AGAIN, placement=Placement.CHILD))
            play(Story((part,), restart=RestartPolicy.ON_FAILURE, placement=Placement.CHILD))


@pytest.mark.own_process
@pytest.mark.unsanitized  # a sanitizer cannot run confined
def test_random_stories_and_walks_in_processes_of_their_own() -> None:
    met: Counter[str] = Counter()
    for seed in range(40):
        source = random.Random(seed)
        play(replace(make_story(Choices(source.randbytes(LENGTH))), placement=Placement.CHILD), met)
        met += walk(replace(make_walk(Choices(source.randbytes(WALK_LENGTH))), placement=Placement.CHILD))
    assert met["state unloaded"]
    assert not met["state abandoned"]
    assert met["load cancelled"]


@pytest.mark.own_process
@pytest.mark.unsanitized  # a sanitizer cannot run confined
def test_a_process_that_is_not_stopped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: ChildTransport) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(ChildTransport, "stop", forget)
    with pytest.raises(Divergence, match=r"calls CcMmFfIi"):
        play(Story((Part(works=Works.NOT),), placement=Placement.CHILD))


@pytest.mark.own_process
def test_what_was_given_up_while_it_was_loaded_is_not_taken_up_again() -> None:
    calls = (Step("load", cancelled_at=1), Step("abandon"), Step("unload"), Step("receive_rest"))
    assert walk(Walk(Part(), calls)) == Counter(
        {"load cancelled": 1, "abandon made": 1, "illegal unload": 1, "illegal receive_rest": 1, "given up": 1}
    )


@pytest.mark.own_process
def test_random_stories_and_walks() -> None:
    met: Counter[str] = Counter()
    seed = 0
    while seed < 80 and slots_in_use() < SLOT_COUNT - 10:
        source = random.Random(seed)
        play(make_story(Choices(source.randbytes(LENGTH))), met)
        met += walk(make_walk(Choices(source.randbytes(WALK_LENGTH))))
        seed += 1
    assert seed > 40
    assert {f"state {state}" for state in ("refused", "unloaded", "abandoned")} <= met.keys()
    assert {f"illegal {call}" for call in CALLS if call not in {"abandon", "unload"}} <= met.keys()
    assert {"load cancelled"} <= met.keys()


@pytest.mark.own_process
def test_hypothesis_finds_no_walk_that_breaks_it() -> None:
    run_state_machine_as_test(
        TransportMachine, settings=settings(max_examples=20, stateful_step_count=15, derandomize=True, database=None)
    )


@pytest.mark.own_process
def test_hypothesis_finds_no_story_that_breaks_it() -> None:
    played = 0

    @settings(max_examples=20, derandomize=True, database=None)
    @given(data=st.binary(min_size=LENGTH, max_size=LENGTH))
    def every_story(data: bytes) -> None:
        nonlocal played
        if slots_in_use() < SLOT_COUNT - 10:
            play(make_story(Choices(data)))
            played += 1

    every_story()
    assert played >= 10  # each that is abandoned keeps a slot, so the last ones may not be played


def test_the_model_is_as_strict_as_the_table() -> None:
    """Every way of at most eleven states through the runtime's table of transitions that the model knows, and no other."""
    ended = {"refused", "unloaded", "abandoned"}
    ways: list[list[str]] = [["registered"]]
    lives = 0
    while ways:
        way = ways.pop()
        if way[-1] in ended:
            lives += 1
            assert check_lives(way[1:], [], Part()) is None, way
            continue
        ways += [[*way, str(state)] for state in TRANSITIONS[PluginState(way[-1])]]
    assert lives > 10
    for wrong in (["loading", "running"], ["loaded", "unloaded"], ["loading", "unloaded", "stopped"], ["quarantined", "loading"]):
        assert check_lives(wrong, [], Part()) is not None
    for calls in ("CcIi", "CcMmFfIiDd", "CcMmFfIiSsDd", "CcMmFfIiSsTtTtDd", "CcMmFfIiTtSsDd", "CcMmFfIiSsTt", "CcMmFfSsDd"):
        assert check_lives(["loading", "unloaded"], [calls], Part()) is not None


@pytest.mark.own_process
def test_a_plugin_that_is_not_stopped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: InProcessTransport) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(InProcessTransport, "stop", forget)
    with pytest.raises(Divergence, match=r"calls CcMmFfIi"):
        play(Story((Part(works=Works.NOT),)))


@pytest.mark.own_process
def test_a_descriptor_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.lifecycle.leftovers.SETTLE_SECONDS", 0.1)
    unload = InProcessTransport.unload

    async def leak(self: InProcessTransport) -> None:
        await unload(self)
        os.dup(0)

    monkeypatch.setattr(InProcessTransport, "unload", leak)
    with pytest.raises(Divergence, match="left behind: descriptors"):
        play(Story((Part(),)))


def test_the_campaign_names_a_seed_that_fails_again(tmp_path: Path) -> None:
    """The fault is planted into the processes that the campaign starts."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if '--child' in sys.argv:\n"
        "    from supervm_rt.transports.native.in_process import InProcessTransport\n"
        "    InProcessTransport._check = lambda self, call, code: None\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "fuzz.lifecycle", "--seed", "0", "--executions"]
    done = subprocess.run([*command, "200"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["failures"] == 1
    assert "the plainest story that fails" in done.stderr
    found = re.search(
        r"again: python -m (fuzz\.lifecycle --seed \d+ --executions 1 --repeat 50)$", done.stderr, flags=re.MULTILINE
    )
    assert found is not None
    command = [sys.executable, "-m", *found[1].split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
