"""The reorg machine's stories, told by real plugins in each of the ways in which a plugin can come (clauses G2, G3)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from fuzz.reorgs import __main__ as campaign
from fuzz.reorgs.placed import PLACED_SITUATIONS, WAYS
from fuzz.reorgs.situations import Situations
from supervm_rt import Runtime
from supervm_rt.chain.window import Node, Window

EACH_WAY = pytest.mark.parametrize(
    "way",
    [
        # A sanitizer cannot run confined.
        pytest.param(way, marks=pytest.mark.unsanitized) if way == "child" else way
        for way in WAYS
    ],
)
PLACEMENTS = {"in-process": "in-process", "child": "child", "grpc": "remote"}
WORLDS = 8
SELDOM = {"orphans refused", "deep reorgs"}
"""What so few worlds need not meet."""


@EACH_WAY
def test_plugins_that_come_in_this_way_are_mirrored_as_the_model_has_it(way: str) -> None:
    situations = Situations()
    for number in range(WORLDS):
        assert campaign.run(*campaign.story(number), situations=situations, make=campaign.maker(way)) is None, number
    assert [name for name in PLACED_SITUATIONS if not situations.counts[name] and name not in SELDOM] == []
    assert [name for name in situations.counts if name.startswith("told by plugins")] == [f"told by plugins {PLACEMENTS[way]}"]


def faulty_switch(self: Window, target: Node) -> tuple[list[Node], list[Node]]:
    """Forgets to undo the lowest block, where it undoes many."""
    left, joined = switch(self, target)
    return (left[:-1] if len(left) > 2 else left), joined


switch = Window.switch


def found(way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a campaign says of the fault that it finds."""
    monkeypatch.setattr(sys, "argv", ["fuzz.reorgs", "--over", way, "--seed", "1000", "--executions", "2000"])
    assert campaign.main() == 1
    said, complaint = capsys.readouterr()
    assert json.loads(said.splitlines()[-1])["failures"] == 1
    assert f"again: python -m fuzz.reorgs --over {way} --seed" in complaint
    return complaint


@EACH_WAY
def test_a_fault_of_the_fork_rules_is_found(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Window, "switch", faulty_switch)
    assert "Divergence" in found(way, monkeypatch, capsys)


@EACH_WAY
def test_a_host_that_resumes_at_another_place_is_found(
    way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    real = Runtime.position

    async def elsewhere(self: Runtime, plugin: str, chain: str) -> bytes | None:
        return b"elsewhere" if await real(self, plugin, chain) else None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runtime, "position", elsewhere)
    complaint = found(way, monkeypatch, capsys)
    assert re.search(r"Divergence: org\.example\.(first|second)\.(one|two|bitcoin): .*gave up \(reason 1\)", complaint)
