"""``mirror``, ``run`` and ``demo`` over the sample chain (clauses IR1, L3, D1)."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import BLOCKFILES, HELLO, ROOT, SAMPLE_BLOCKS, command, mirror_arguments, mirror_sample, supervm

ANSWERS: dict[str, Any] = json.loads((SAMPLE_BLOCKS.parent / "answers.json").read_text())
TIP = {"hash": ANSWERS["getblockchaininfo"]["bestblockhash"], "height": ANSWERS["getblockchaininfo"]["blocks"]}


def digest(store: Path, chain: str = "bitcoin") -> str:
    answer: str = supervm("chain", "digest", chain, "--store", store, "--json").json()["digest"]
    return answer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the sample chain."""
    store = tmp_path_factory.mktemp("undisturbed") / "store.db"
    assert mirror_sample(store).status == 0
    return digest(store)


def test_the_sample_chain_ends_where_the_node_ended(tmp_path: Path) -> None:
    ran = mirror_sample(tmp_path / "store.db")
    assert ran.status == 0, ran.err
    summary = ran.json()
    assert set(summary) == {
        "chain",
        "tip",
        "blocks",
        "transactions",
        "reorgs",
        "deepest_reorg",
        "rejected",
        "bytes",
        "seconds",
    }
    assert summary["chain"] == "bitcoin"
    assert summary["tip"] == TIP
    assert summary["reorgs"] == len(ANSWERS["reorgs"])
    assert summary["deepest_reorg"] == max(reorg["depth"] for reorg in ANSWERS["reorgs"])
    assert summary["rejected"] == []
    assert summary["blocks"] > TIP["height"]
    assert summary["seconds"] > 0


def test_events_rebuild_the_nodes_chain_and_its_reorgs(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    mirror_sample(store)
    chain: list[str] = []
    depths, undone = [], 0
    final = -1
    for event in supervm("chain", "events", "bitcoin", "--store", store, "--json").lines():
        if event["step"] == "final":
            final += 1
            assert (chain[final], final) == (event["hash"], event["height"])
            continue
        if event["step"] == "undo":
            assert chain.pop() == event["hash"]
            undone += 1
            continue
        if undone:
            depths.append(undone)
            undone = 0
        assert event["height"] == len(chain)
        chain.append(event["hash"])
    assert chain == [block["hash"] for block in ANSWERS["chain"]]
    assert depths == [reorg["depth"] for reorg in ANSWERS["reorgs"]]
    assert final == TIP["height"] - 101


def test_a_second_run_finds_nothing_new(tmp_path: Path, undisturbed: str) -> None:
    store = tmp_path / "store.db"
    mirror_sample(store)
    again = mirror_sample(store).json()
    assert (again["blocks"], again["bytes"], again["tip"]) == (0, 0, TIP)
    assert digest(store) == undisturbed


def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path: Path, undisturbed: str) -> None:
    store = tmp_path / "store.db"
    arguments = command(*mirror_arguments(store, SAMPLE_BLOCKS, "regtest"), "--until-idle")
    for milliseconds in (150, 180, 200, 220, 240, 260, 280):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(milliseconds / 1000)  # wherever this falls, the outcome must be the same
        process.send_signal(signal.SIGKILL)
        process.wait()
    ran = mirror_sample(store)
    assert ran.status == 0, ran.err
    assert digest(store) == undisturbed


def test_stopped_by_a_signal_it_ends_well(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    arguments = command(*mirror_arguments(store, SAMPLE_BLOCKS, "regtest"), "--set", "follow=true", "--json")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while supervm("chain", "tip", "bitcoin", "--store", store, "--json").out.find(TIP["hash"]) < 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["tip"] == TIP
    assert "stopping" in err


def test_interrupted_before_it_was_idle_it_says_so_and_fails(tmp_path: Path) -> None:
    (tmp_path / "plugin.yaml").write_text(
        "{id: org.example.actor, name: actor, version: '1.0.0', chain: dev, capabilities: [block_stream], binary: actor.so}"
    )
    source = ROOT / "tests/runtime/plugins/actor.c"
    compiler = ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", f"-I{ROOT / 'include'}", "-o", str(tmp_path / "actor.so"), str(source)]
    subprocess.run(compiler, check=True)
    arguments = command("mirror", "--plugin", tmp_path, "--policy", "dev", "--store", tmp_path / "s.db", "--until-idle", "--json")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "actor: init" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped before all was mirrored" in err
    assert json.loads(out.splitlines()[-1])["tip"] is None


def test_a_reader_of_the_messages_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    arguments = command(*mirror_arguments(tmp_path / "s.db", SAMPLE_BLOCKS, "regtest"), "--until-idle", "--json")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    out = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert json.loads(out.splitlines()[-1])["tip"] == TIP


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_descriptors_are_no_reason_to_fail(tmp_path: Path, redirect: str) -> None:
    line = shlex.join(command(*mirror_arguments(tmp_path / "s.db", SAMPLE_BLOCKS, "regtest"), "--until-idle", "--json"))
    done = subprocess.run(f"{line} {redirect}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    tip = supervm("chain", "tip", "bitcoin", "--store", tmp_path / "s.db", "--json").json()
    assert tip["hash"] == TIP["hash"]


def test_an_answer_that_cannot_be_written_fails(tmp_path: Path) -> None:
    mirror_sample(tmp_path / "s.db")
    line = shlex.join(command("chain", "events", "bitcoin", "--store", tmp_path / "s.db"))
    full = subprocess.run(f"{line} > /dev/full", shell=True, capture_output=True, text=True, check=False)
    assert full.returncode == 1
    assert "cannot be written (No space left on device)" in full.stderr
    assert "Traceback" not in full.stderr
    gone = subprocess.run(f"{line} | head -1", shell=True, capture_output=True, text=True, check=False)
    assert len(gone.stdout.splitlines()) == 1
    assert gone.stderr == ""


@pytest.mark.parametrize("policy", [[], ["--policy", "strict"], ["--policy", "permissive"]])
def test_without_dev_it_refuses_and_explains(tmp_path: Path, policy: list[str]) -> None:
    ran = supervm(
        "mirror", "--plugin", BLOCKFILES, "--set", "blocks_dir=/", *policy, "--store", tmp_path / "s.db", "--until-idle"
    )
    assert ran.status == 1
    assert "signature" in ran.err
    assert "--policy dev" in ran.err


def test_a_plugin_that_fails_fails_the_run(tmp_path: Path) -> None:
    ran = supervm(*mirror_arguments(tmp_path / "s.db", tmp_path / "nowhere", "regtest"), "--until-idle", "--json")
    assert ran.status == 1
    assert "nowhere" in ran.err


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["mirror"], 2, "--plugin"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--set", "novalue"], 2, "KEY=VALUE"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--mode", "widest"], 2, "widest"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--final-depth", "-1"], 2, "neither a number"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--policy", "none"], 2, "none"),
        (["mirror", "--plugin", "nowhere", "--store", "s.db"], 2, "nowhere/plugin.yaml: no such file"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--chain", ""], 2, "chain is ''"),
        (["mirror", "--plugin", ".", "--store", "s.db", "--chain", "a b"], 2, "chain is 'a b'"),
        (["run", "/dev/zero"], 2, "more than the 1048576 that are read"),
        (["run", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
        ([], 2, "COMMAND"),
        (["fly"], 2, "fly"),
    ],
)
def test_wrong_calls_say_what_is_wrong(tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    ran = supervm(*arguments, cwd=tmp_path)
    assert ran.status == status
    assert says in ran.err
    assert ran.out == ""


def test_a_network_that_does_not_exist_is_a_wrong_setting(tmp_path: Path) -> None:
    ran = supervm(*mirror_arguments(tmp_path / "s.db", SAMPLE_BLOCKS, "moonnet"), "--until-idle")
    assert ran.status == 2
    assert "moonnet" in ran.err
    assert "regtest" in ran.err


def test_another_network_on_the_same_chain_name_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    mirror_sample(store)
    ran = supervm(*mirror_arguments(store, SAMPLE_BLOCKS, "signet"), "--until-idle")
    assert ran.status == 2
    assert "regtest" in ran.err
    assert "signet" in ran.err
    named = supervm(*mirror_arguments(store, SAMPLE_BLOCKS, "regtest"), "--chain", "second", "--until-idle", "--json")
    assert named.status == 0, named.err
    assert named.json()["tip"] == TIP
    assert [row["chain"] for row in supervm("chain", "list", "--store", store, "--json").json()] == ["bitcoin", "second"]
    assert digest(store, "second") == digest(store)


def test_hello_is_the_first_plugin(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    ran = supervm("mirror", "--plugin", HELLO, "--policy", "dev", "--store", store, "--until-idle", "--json")
    assert ran.status == 0, ran.err
    assert ran.json()["blocks"] == 10


def test_a_plugin_that_streams_no_blocks_has_a_summary_too(tmp_path: Path) -> None:
    (tmp_path / "plugin.yaml").write_text(
        "{id: org.example.v0, name: quiet, version: '0.1.0', chain: bitcoin, capabilities: [submit_tx], binary: v0.so}"
    )
    source = ROOT / "tests/runtime/plugins/quiet_v0.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "v0.so", source], check=True)
    ran = supervm("mirror", "--plugin", tmp_path, "--policy", "dev", "--store", tmp_path / "s.db", "--until-idle", "--json")
    assert ran.status == 0, ran.err
    assert "quiet: init" in ran.err
    assert (ran.json()["chain"], ran.json()["tip"], ran.json()["blocks"]) == ("bitcoin", None, 0)


class TestRun:
    def write(self, folder: Path, **changes: object) -> Path:
        plugins = [
            {
                "path": str(BLOCKFILES),
                "settings": {"blocks_dir": str(SAMPLE_BLOCKS), "network": "regtest"},
                "name": "sample",
                "final_depth": 10,
                "orphans": 100,
            },
            {"path": str(HELLO)},
        ]
        document = {
            "store": "node.db",
            "policy": "dev",
            "ring": "1MiB",
            "deadlines": {"init": "5s"},
            "plugins": plugins,
        } | changes
        path = folder / "node.yaml"
        path.write_text(json.dumps(document))
        return path

    def test_two_plugins_and_a_store_beside_the_file(self, tmp_path: Path) -> None:
        ran = supervm("run", self.write(tmp_path), "--until-idle", "--json")
        assert ran.status == 0, ran.err
        answer = ran.json()
        assert {chain["chain"]: chain["tip"]["height"] for chain in answer["chains"]} == {"bitcoin": TIP["height"], "dev": 9}
        assert [plugin["plugin"] for plugin in answer["plugins"]] == ["sample", "org.supervm.hello"]
        assert (tmp_path / "node.db").exists()
        tip = supervm("chain", "tip", "bitcoin", "--store", tmp_path / "node.db", "--json").json()
        assert tip["final"]["height"] == TIP["height"] - 11

    def test_the_policy_of_the_command_line_wins(self, tmp_path: Path) -> None:
        ran = supervm("run", self.write(tmp_path), "--until-idle", "--policy", "strict")
        assert ran.status == 1
        assert "--policy dev" in ran.err

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"plugins": []}, "plugins"),
            ({"colour": 1}, "unknown key 'colour'"),
            ({"ring": "1kB"}, "between 64KiB and 1GiB"),
            ({"deadlines": {"init": "soon"}}, "deadlines.init: 'soon' is not a length of time"),
            ({"plugins": [{"path": "x", "final_depth": -1}]}, "plugins[0].final_depth"),
            ({"plugins": [{"path": "x", "mode": "up"}]}, "plugins[0].mode: 'up' is not one of follow, longest, heaviest"),
            ({"policy": "lax"}, "policy: 'lax' is not one of dev"),
        ],
    )
    def test_a_wrong_file_is_named_with_the_place(self, tmp_path: Path, changes: dict[str, object], says: str) -> None:
        ran = supervm("run", self.write(tmp_path, **changes), "--until-idle")
        assert ran.status == 2
        assert "node.yaml: " in ran.err
        assert says in ran.err


def test_the_demonstration_names_three_commands_that_work(tmp_path: Path) -> None:
    ran = supervm("demo", "--store", tmp_path / "store.db", cwd=ROOT)
    assert ran.status == 0, ran.err
    assert TIP["hash"] in ran.out
    commands = [line.strip() for line in ran.out.partition("Try next:")[2].splitlines() if line.strip()]
    assert len(commands) == 3
    for line in commands:
        done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_progress_on_a_terminal_does_not_reach_the_output(tmp_path: Path) -> None:
    arguments = command(*mirror_arguments(tmp_path / "s.db", SAMPLE_BLOCKS, "regtest"), "--until-idle", "--json")
    quoted = subprocess.list2cmdline(arguments)
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", f"{quoted} 2>/dev/tty", tmp_path / "typescript"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    _, found, summary = done.stdout.splitlines()[-1].partition('{"chain"')
    assert json.loads(found + summary)["tip"] == TIP


def test_events_are_kept_for_as_long_as_is_said(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    assert mirror_sample(store).status == 0
    events = ("chain", "events", "bitcoin", "--store", store, "--limit", 100_000, "--json")
    complete = supervm(*events).out.count("\n")
    kept = ("--keep-final", "1ms", "--keep-undone", "forever", "--keep-events", "50")
    process = subprocess.Popen(
        command(*mirror_arguments(store, SAMPLE_BLOCKS, "regtest"), *kept), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while (left := supervm(*events)).out.count("\n") > complete / 2:
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert left.out.count("\n") >= 50
    assert '"undo"' in supervm(*events).out
    told = supervm("tail", "bitcoin", "--store", store, "--from-start", "--json").lines()
    known: list[str] = []
    for event in told:
        match event["step"]:
            case "new":
                known.append(event["hash"])
            case "undo":
                assert known.pop() == event["hash"]
    assert known[-1] == TIP["hash"]
    assert len(known) == TIP["height"] + 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--keep-final", "soon"), "length of time"),
        (("--keep-undone", "3d"), "give --keep-final too"),
        (("--keep-final", "3d", "--keep-undone", "1d"), "shorter time"),
        (("--keep-final", "3d", "--keep-events", "few"), "is not a"),
    ],
)
def test_lengths_that_cannot_be_kept_are_refused(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    ran = mirror_sample(tmp_path / "store.db", *arguments)
    assert ran.status == 2
    assert why in ran.err
    assert not (tmp_path / "store.db").exists()
