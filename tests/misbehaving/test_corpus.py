"""One plugin for each way to misbehave, each beside a neighbour: the host goes on, names what happened, and nothing leaks.

Clauses A1 to A9, L5, G1, and rule 1 of docs/design.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, PluginConfig, PluginState
from supervm_rt.transports.native.child.host import machine, program
from supervm_rt.trust.policy import Placement
from tests.misbehaving.expectations import CASES, Case, Changes, Expected, Kills
from tests.misbehaving.support import (
    NEIGHBOUR_BLOCKS,
    PLUGIN,
    SOURCES,
    MakeMisbehaving,
    add_neighbour,
    deadlines,
    leftovers,
    mirrors_all,
    neighbour,
    peak_kibibytes,
    process_state,
    until,
)
from tests.misbehaving.victim import COMMITTED
from tests.runtime.support import MakePlugin, Node

ROOT = Path(__file__).parents[2]
REJECTION_LIMIT = 20
HOSTED = [case for case in CASES if Placement.IN_PROCESS in case.expected and case.expected[Placement.IN_PROCESS].later]
HOLDING = [case for case in CASES if Placement.IN_PROCESS in case.expected and not case.expected[Placement.IN_PROCESS].later]
DEADLY = [case for case in CASES if isinstance(case.harm, Kills)]


def own_process(case: Case) -> bool:
    """Whether it leaves something in the process that runs it."""
    return bool(case.expected[Placement.IN_PROCESS].leaves) or case.harm is not None


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[pytest.mark.own_process] if own_process(case) else []) for case in HOSTED],
)
def test_the_host_goes_on_and_names_it(
    node: Node,
    misbehaving: MakeMisbehaving,
    make_plugin: MakePlugin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    host_it(node, misbehaving, make_plugin, tmp_path, monkeypatch, case)


@pytest.mark.unsanitized("runs confined")
@pytest.mark.parametrize("node", [Placement.CHILD], indirect=True, ids=str)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_in_a_sandbox_none_harms_the_host_or_leaves_anything(
    node: Node,
    misbehaving: MakeMisbehaving,
    make_plugin: MakePlugin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    """Those too that end the process that they run in."""
    host_it(node, misbehaving, make_plugin, tmp_path, monkeypatch, case)


def host_it(
    node: Node,
    misbehaving: MakeMisbehaving,
    make_plugin: MakePlugin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    expected = case.expected[node.placement]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if node.placement is Placement.CHILD:  # What is found out and kept once for the process is no leftover.
        machine()
        program("supervm-runner")
    plugin = PluginConfig(path=misbehaving(case))
    beside = neighbour(make_plugin(), "neighbour")
    before, state = leftovers(temporary), process_state()

    async def main() -> None:
        async with node.open(plugin, beside, deadlines=deadlines(expected), rejection_limit=REJECTION_LIMIT) as runtime:
            if expected.ends:
                await until(runtime, PLUGIN, lambda status: status.finished)
            else:
                with trio.fail_after(30):
                    while not is_done(node, case, expected, runtime.plugins[PLUGIN].state):
                        assert not runtime.plugins[PLUGIN].finished, runtime.plugins[PLUGIN].failure
                        await trio.sleep(0.005)
                assert runtime.plugins[PLUGIN].failure is None
                await runtime.stop(PLUGIN)
            status = runtime.plugins[PLUGIN]
            assert status.state is expected.state
            if expected.failure:
                assert status.failure is not None
                assert expected.failure in str(status.failure)
                assert status.failure.blame == expected.blame
            else:
                assert status.failure is None
            if expected.blocks is not None:
                assert runtime.chains[case.chain].blocks == expected.blocks
            await mirrors_all(runtime, "neighbour")
            await add_neighbour(runtime, make_plugin, "later")

    trio.run(main)
    check_events(node, case, expected)
    left = {kind for kind, count in leftovers(temporary).items() if count > before[kind]}
    check_leftovers(case, expected, left, state, node.placement)
    with supervm_rt.Store.open(node.store, read_only=True) as store:
        assert store.chain("neighbour").tip() is not None
        if expected.position is not None:
            assert store.position(PLUGIN, case.chain) == expected.position


def is_done(node: Node, case: Case, expected: Expected, state: PluginState) -> bool:
    """The plugin said so; one that drowns its own words has made the host say that it dropped some."""
    if not expected.says_done:
        return state is PluginState.RUNNING
    if case.name == "floods":
        return bool(node.of(EventKind.PLUGIN_DROPPED))
    return any(event.message == "done" for event in node.of(EventKind.PLUGIN_LOG))


def check_events(node: Node, case: Case, expected: Expected) -> None:
    failures = [event for event in node.of(EventKind.PLUGIN_FAILED) if event.plugin == PLUGIN]
    assert [event.data["blame"] for event in failures] == ([expected.blame] if expected.failure else [])
    assert all(expected.failure in event.message for event in failures)
    assert [event.plugin for event in node.of(EventKind.PLUGIN_FAILED)] == [PLUGIN] * len(failures)
    for kind, text in expected.events:
        assert any(text in event.message and event.plugin == PLUGIN for event in node.of(kind)), (kind, text)
    abandoned = expected.state is PluginState.ABANDONED
    assert [event.plugin for event in node.of(EventKind.PLUGIN_ABANDONED)] == [PLUGIN] * abandoned
    rejected = Counter(str(event.data["reason"]) for event in node.of(EventKind.CHAIN_REJECTED))
    if expected.state is PluginState.QUARANTINED and "corrupt" not in expected.failure:
        assert rejected.total() > REJECTION_LIMIT
    else:
        assert rejected == expected.rejected
    assert all(event.message.isprintable() for event in node.of(EventKind.PLUGIN_LOG))


def check_leftovers(case: Case, expected: Expected, left: set[str], state: dict[str, object], placement: Placement) -> None:
    changed = {name for name, value in process_state().items() if value != state[name]}
    if placement is Placement.CHILD:
        assert left == changed == set()
        return
    if peak_kibibytes() > 256 << 10 and case.harm is not None:
        changed.add("memory")
    if isinstance(case.harm, Changes):
        # The positive control: it does what is said of it, and nothing in its process hindered it.
        assert left | changed == case.harm.what
    else:
        assert left <= expected.leaves
        assert changed == set()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in DEADLY])
def test_it_ends_the_process_that_it_runs_in(
    tmp_path: Path, misbehaving: MakeMisbehaving, make_plugin: MakePlugin, case: Case
) -> None:
    """A positive control: what a process of its own has to hold. What was committed before is in the store all the same."""
    assert isinstance(case.harm, Kills)
    done = run_victim(misbehaving(case), make_plugin(), tmp_path)
    if case.harm.signal is not None:
        assert done.returncode == -case.harm.signal, done.stderr
    elif case.harm.status is not None:
        assert done.returncode == case.harm.status, done.stderr
    else:
        assert done.returncode != 0
    assert done.stdout.splitlines() == [COMMITTED]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in HOLDING])
def test_the_host_ends_well_although_nothing_can_be_loaded_any_more(
    tmp_path: Path, misbehaving: MakeMisbehaving, make_plugin: MakePlugin, case: Case
) -> None:
    expected = case.expected[Placement.IN_PROCESS]
    done = run_victim(misbehaving(case), make_plugin(), tmp_path)
    assert done.returncode == 0, done.stderr
    state, failure, blame, beside = json.loads(done.stdout.splitlines()[-1])
    assert state == expected.state
    assert expected.failure in failure
    assert blame == expected.blame
    assert beside == PluginState.RUNNING


def run_victim(plugin: Path, other: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the host; whatever became of it, what the neighbour had said before is in the store."""
    store = folder / "store.db"
    command = [sys.executable, "-m", "tests.misbehaving.victim", str(plugin), str(other), str(store)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert COMMITTED in done.stdout, done.stderr
    with supervm_rt.Store.open(store) as opened:
        tip = opened.chain("neighbour").tip()
        assert tip is not None
        assert tip.height == NEIGHBOUR_BLOCKS
    return done


def test_every_plugin_of_the_folder_is_in_the_table_and_says_what_it_does_first() -> None:
    files = {path.name for path in SOURCES.iterdir()} - {"good.c", "good.h"}
    assert files == {case.source for case in CASES}
    assert len(CASES) == len({case.name for case in CASES})
    for path in SOURCES.iterdir():
        first = path.read_text().splitlines()[0]
        assert first.startswith("/* "), path
        assert first.endswith(". */"), path
    for case in DEADLY:
        assert "It ends its process: " in (SOURCES / case.source).read_text().splitlines()[0]
