"""The reorg machine: it agrees, it meets what it is meant to meet, and what it finds can be told and repeated."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.reorgs import __main__ as campaign
from fuzz.reorgs import machine
from fuzz.reorgs.choices import Choices
from fuzz.reorgs.situations import SITUATIONS, Situations
from fuzz.reorgs.world import STEPS, World
from supervm_rt.chain.tracker import ForkTracker
from supervm_rt.chain.window import Node, Window
from supervm_rt.store import replay

ROOT = Path(__file__).parents[2]


def test_the_machine_agrees_with_the_model() -> None:
    run_state_machine_as_test(
        machine.ReorgMachine, settings=settings(max_examples=30, stateful_step_count=40, derandomize=True, database=None)
    )


def test_a_campaign_meets_every_situation() -> None:
    situations = Situations()
    for number in range(100):
        assert campaign.run(*campaign.story(number), situations=situations) is None
    assert [name for name in SITUATIONS if not situations.counts[name]] == []
    assert situations.deepest >= 30


def test_the_model_knows_a_first_block_with_two_faults() -> None:
    """The only block so far, whose height nothing tells, is sent again as its own parent."""
    setup = bytes.fromhex("88466f2e82f6b2ec2c47c126c28efc07")
    steps = [
        ("block", bytes.fromhex("f64dd7e7300eafe436b5011dd51e5118")),
        ("block", bytes.fromhex("265e97356c06b48c563edb1be4280803")),
        ("reopen", bytes.fromhex("064f82e1c1de2a3ef1614df3e3fd5e27")),
    ]
    assert campaign.run(setup, steps) is None


def test_every_story_can_be_told_as_vector_files(tmp_path: Path) -> None:
    """Lost batches, kills and blocks that only their bytes refuse included: the replay emits the same events."""
    restarts = 0
    for number in range(40):
        setup, steps = campaign.story(number)
        world = World(setup)
        try:
            for name, choices in steps:
                STEPS[name](world, Choices(choices))
            for path, chain in zip(world.write_vectors(tmp_path), world.chains, strict=True):
                answers = list(replay(path.read_text().splitlines()))
                restarts += sum(answer["input"] == "restart" for answer in answers)
                hexadecimal = chain.name == "bitcoin"
                events = [
                    (step, bytes.fromhex(hash_) if hexadecimal else hash_.encode())
                    for answer in answers
                    for step, hash_ in answer["events"]
                ]
                assert events == chain.expected.events, (number, chain.name)
        finally:
            world.close()
    assert restarts > 100


def faulty_switch(self: Window, target: Node) -> tuple[list[Node], list[Node]]:
    """Forgets to undo the lowest block, where it undoes many."""
    left, joined = switch(self, target)
    return (left[:-1] if len(left) > 2 else left), joined


switch = Window.switch


def test_a_fault_is_found_named_and_replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Window, "switch", faulty_switch)
    monkeypatch.setattr(sys, "argv", ["fuzz.reorgs", "--seed", "1000", "--executions", "20000"])
    assert campaign.main() == 1
    said, complaint = capsys.readouterr()
    result = json.loads(said.splitlines()[-1])
    assert result["failures"] == 1
    found = re.search(r"seed (\d+); again: python -m fuzz\.reorgs --seed (\d+) --executions 1", complaint)
    assert found is not None
    number = int(found[1])
    steps = re.findall(r"^  (\w+) ([0-9a-f]*)$", complaint, flags=re.MULTILINE)
    assert 0 < len(steps) < 30, "the story was not shortened"

    monkeypatch.setattr(sys, "argv", ["fuzz.reorgs", "--seed", str(number), "--executions", "1"])
    assert campaign.main() == 1
    assert f"seed {number};" in capsys.readouterr().err

    paths = re.findall(r"^python -m supervm_rt forks replay (\S+) --json$", complaint, flags=re.MULTILINE)
    assert len(paths) == 3
    faulty = {path: list(replay(Path(path).read_text().splitlines())) for path in paths}
    monkeypatch.undo()
    assert campaign.run(*campaign.story(number)) is None, "only the fault makes it fail"
    differ = 0
    for path in paths:
        command = [sys.executable, "-m", "supervm_rt", "forks", "replay", str(tmp_path / path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        differ += [json.loads(line) for line in done.stdout.splitlines()] != faulty[path]
    assert differ == 1, "the vector file shows the fault"


def test_the_machine_tells_the_shortest_story(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "FAILURES", tmp_path / "failures")
    real = ForkTracker.finalize
    monkeypatch.setattr(ForkTracker, "finalize", lambda self, hash_, height: real(self, hash_, max(height - 1, 0)))
    fault = None
    for number in range(20):
        fault = fault or campaign.run_machine(number)
    assert fault is not None
    assert "Divergence" in fault
    assert "vector files:" in capsys.readouterr().err
    lines = (tmp_path / "failures" / "one.jsonl").read_text().splitlines()
    assert len(lines) < 8


def test_a_fixed_seed_is_a_fixed_story() -> None:
    assert campaign.story(7) == campaign.story(7)
    assert campaign.story(7) != campaign.story(8)
