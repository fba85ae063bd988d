"""What a hostile plugin can try against its own host: each is recognised, named, and no concern of the neighbours."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from supervm_rt import Deadlines
from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import LoadError
from supervm_rt.model.manifest import Security
from supervm_rt.transports.native.child import transport as child_transport
from supervm_rt.transports.native.child.seccomp import SHIPPED
from supervm_rt.transports.native.child.transport import MESSAGES_AT_ONCE, ChildTransport
from tests.sandbox.support import Aim, make_attacker, observe, run_node
from tests.sandbox.test_attacks import EXPECTED

CAUSES = {
    "false_head": "corrupt-ring",
    "far_head": "corrupt-ring",
    "long_record": "corrupt-ring",
    "pointer_record": "corrupt-ring",
    "write_host_page": "crash",
    "forge_control": "control",
    "forge_answer": "control",
    "spin_in_stop": "hang",
    "abort_in_stop": "crash",
}
BURSTS = {"burst_of_logs": 100_000, "burst_of_metrics": 1_000_000, "burst_of_lines": 30_000}
FLOODS = ("flood_logs", "flood_metrics", "flood_stdout", "flood_line_ends", "flood_wakes", "flood_notices")
USER = os.geteuid()


@dataclass(frozen=True)
class Attacker:
    """A plugin under a profile, and as whom its node runs."""

    folder: Path
    profile: str
    user: int
    work: Path

    def observe(self, *acts: str, **options: Any) -> dict[str, Any]:
        """What became of each, in one node."""
        found: dict[str, Any] = observe(self.folder, self.work, acts, {}, user=self.user, **options)["acts"]
        (self.work / "store.db").unlink()
        return found


@pytest.fixture(scope="module", params=SHIPPED)
def attacker(request: pytest.FixtureRequest, aim: Aim, tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    folder = make_attacker(tmp_path_factory.mktemp("attacker") / "plugin", profile=request.param, read_paths="[]")
    return Attacker(folder, request.param, aim.user, aim.work)


@pytest.fixture(scope="module")
def seen(attacker: Attacker) -> dict[str, Any]:
    return attacker.observe(*CAUSES, *BURSTS, "print", "punch_ring", seconds=2)


@pytest.mark.parametrize("act", CAUSES)
def test_it_is_recognised_and_named(act: str, seen: dict[str, Any]) -> None:
    assert seen[act]["causes"] == [CAUSES[act]], seen[act]
    quarantined = CAUSES[act] == "corrupt-ring"
    assert seen[act]["state"] == ("quarantined" if quarantined else "unloaded")


def test_the_words_of_the_host_cannot_be_made_writable(seen: dict[str, Any]) -> None:
    assert seen["write_host_page"]["log"] == [f"protect_host_page answered {errno.EACCES}"]


def test_pages_of_the_ring_cannot_be_removed(seen: dict[str, Any]) -> None:
    expected = [f"remove_pages answered {errno.EPERM}", f"remove_pages_by_high_bits answered {errno.EPERM}"]
    assert seen["punch_ring"]["log"] == expected


@pytest.fixture(scope="module")
def unconfined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in process, as a positive control."""
    return make_attacker(tmp_path_factory.mktemp("unconfined") / "plugin", security="{sandbox: false}")


def test_without_a_sandbox_they_can_and_the_words_of_the_host_are_writable(unconfined: Path, tmp_path: Path) -> None:
    acts = observe(unconfined, tmp_path, ["write_host_page", "punch_ring"], {}, user=USER)["acts"]
    assert acts["punch_ring"]["log"] == ["remove_pages answered 0", "remove_pages_by_high_bits answered 0"]
    assert acts["write_host_page"]["log"] == ["protect_host_page answered 0", "write_host_page answered 0"]


def test_what_it_prints_becomes_log_lines(seen: dict[str, Any]) -> None:
    assert sorted(seen["print"]["log"]) == ["stderr: hello from \\x1b[31mstderr", "stdout: hello from stdout"]


def test_without_a_sandbox_lies_in_the_ring_reach_the_host(unconfined: Path, tmp_path: Path) -> None:
    """One code base reads the rings of both. An address in a record is believed in process alone, and the host jumps to it."""
    acts = observe(unconfined, tmp_path, ["false_head", "far_head", "long_record"], {}, user=USER)["acts"]
    assert [entry["causes"] for entry in acts.values()] == [["corrupt-ring"]] * 3
    assert run_node(unconfined, tmp_path, ["pointer_record"], {}, user=USER).returncode == -signal.SIGSEGV


def test_without_a_sandbox_what_it_says_is_not_bounded_by_the_host(unconfined: Path, tmp_path: Path) -> None:
    done = run_node(unconfined, tmp_path, list(BURSTS), {}, user=USER)
    assert done.stdout.count("burst burst burst burst burst burst\n") == BURSTS["burst_of_lines"]
    acts = json.loads(done.stdout.splitlines()[-1])["acts"]
    for burst in ("burst_of_logs", "burst_of_metrics"):
        entry = acts[burst]
        assert entry["lines"] + entry["metrics"] + sum(entry["dropped"]) + entry["uncounted"] == BURSTS[burst]


@pytest.mark.parametrize("burst", BURSTS)
def test_what_is_said_too_fast_is_dropped_and_all_of_it_counted(burst: str, seen: dict[str, Any]) -> None:
    entry = seen[burst]
    assert entry["failures"] == []
    kept, dropped = entry["lines"] + entry["metrics"], sum(entry["dropped"]) + entry["uncounted"]
    assert kept + dropped == BURSTS[burst]
    assert entry["dropped"], "an event says so"
    assert 0 < kept < 3 * MESSAGES_AT_ONCE


def test_floods_without_an_end_do_not_hold_the_host(attacker: Attacker) -> None:
    """The node still starts, watches and stops another plugin, within observe's own deadlines, beside all of them at once.

    Under strict there are no threads: they flood within plugin_start, until its deadline.
    """
    acts = attacker.observe(*FLOODS, "print", seconds=10, initialise=60 if attacker.profile == "baseline" else 3)
    assert len(acts["print"]["log"]) == 2
    assert acts["print"]["state"] == "unloaded"
    for flood in FLOODS:
        entry = acts[flood]
        assert entry["state"] == "unloaded"
        if flood in {"flood_logs", "flood_stdout"}:
            assert entry["lines"] > 0
            assert sum(entry["dropped"]) + entry["uncounted"] > 0
        if flood == "flood_notices":
            assert entry["causes"] == ["lifecycle"], "every word says something, that it wants to be shut down too"
        elif attacker.profile == "strict" and flood != "flood_metrics":  # which has an end
            assert entry["causes"] == ["hang"], entry
        else:
            assert entry["causes"] == [], entry


@pytest.mark.parametrize("act", ["spin_in_init", "close_all"])
def test_a_call_that_never_answers_is_killed(act: str, attacker: Attacker) -> None:
    seen = attacker.observe(act, seconds=1, initialise=1)[act]
    # One that closed its runner's channel ends with it, or waits in it.
    assert seen["causes"] == ["hang"] or (act == "close_all" and seen["causes"] == ["exit"])
    assert seen["state"] == "unloaded"


NAME = "PUT_A_NAME_HERE"


@pytest.fixture(scope="module", params=SHIPPED)
def constructors(
    request: pytest.FixtureRequest, aim: Aim, inherited: list[int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Every attack by the constructor of a library of its own, in one node."""
    folder = tmp_path_factory.mktemp("constructors")
    options = (f"-DCONSTRUCTOR={NAME}", f'-DSECRET="{aim.secret}"', f"-DPORT={aim.port}", f"-DPROCESS={aim.process}")
    made = make_attacker(folder / "any", *options, profile=request.param, read_paths="[]")
    library = (made / "plugin.so").read_bytes()
    assert library.count(NAME.encode().ljust(64, b"\0")) == 1
    for attack in EXPECTED:
        shutil.copytree(made, folder / attack)
        named = library.replace(NAME.encode().ljust(64, b"\0"), attack.encode().ljust(64, b"\0"))
        (folder / attack / "plugin.so").write_bytes(named)
    found: dict[str, Any] = observe(folder, aim.work, list(EXPECTED), {}, user=aim.user, inherited=inherited)["acts"]
    (aim.work / "store.db").unlink()
    return found


@pytest.mark.parametrize("attack", EXPECTED)
def test_a_constructor_is_confined_before_it_runs(attack: str, constructors: dict[str, Any]) -> None:
    seen, expected = constructors[attack], EXPECTED[attack]
    if isinstance(expected, int):
        assert seen["log"] == [f"{attack} answered {expected}"]
        assert seen["failures"] == []
    else:
        assert seen["causes"] == [expected]
        assert seen["log"] == []


def test_what_a_constructor_says_in_the_runners_place_is_not_believed(attacker: Attacker, tmp_path: Path) -> None:
    """The host asks the kernel what is around the process."""
    folder = make_attacker(tmp_path / "plugin", "-DFORGE_LOADED", profile=attacker.profile, read_paths="[]")
    seen = observe(folder, attacker.work, ["nothing"], {}, user=attacker.user)["acts"]["nothing"]
    (attacker.work / "store.db").unlink()
    assert seen["causes"] == ["load"], seen
    assert "the second seccomp program is not around it" in seen["failures"][0]
    assert seen["state"] == "unloaded"


def test_a_host_that_did_not_ask_would_believe_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_attacker(tmp_path / "plugin", "-DFORGE_LOADED", read_paths="[]")

    async def load() -> bytes:
        it = ChildTransport(
            SealedLibrary((folder / "plugin.so").read_bytes()),
            name="it",
            generation=1,
            ring_bytes=1 << 16,
            heartbeat=None,
            deadlines=Deadlines(),
            security=Security(),
            folder=folder,
            read_paths={},
        )
        try:
            return await it.load()
        finally:
            await it.unload()

    with pytest.raises(LoadError, match="kept the sandbox from being closed"):
        trio.run(load)
    monkeypatch.setattr(child_transport, "what_is_missing", lambda *_, **__: "")
    assert b"org.example.attacker" in trio.run(load)


def test_a_thread_that_a_constructor_left_is_under_the_second_program_too(attacker: Attacker, tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", "-DLEFT_THREAD", profile=attacker.profile, read_paths="[]")
    seen = observe(folder, attacker.work, ["nothing"], {}, user=attacker.user)["acts"]["nothing"]
    (attacker.work / "store.db").unlink()
    if attacker.profile == "baseline":
        said = ["leave_thread answered 0", f"left_thread answered {errno.EPERM}"]
    else:
        said = [f"leave_thread answered {errno.EPERM}"]
    assert seen["log"] == ["opened_while_loading answered 0", *said]


def test_without_a_sandbox_such_a_thread_goes_on_opening_files(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", "-DLEFT_THREAD", security="{sandbox: false}")
    seen = observe(folder, tmp_path, ["nothing"], {}, user=USER)["acts"]["nothing"]
    assert seen["log"] == ["opened_while_loading answered 0", "leave_thread answered 0", "left_thread answered 0"]


def test_without_namespaces_landlock_and_seccomp_still_hold(tmp_path: Path) -> None:
    """Inside a sandbox that allows no further one, where bubblewrap cannot work."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = make_attacker(tmp_path / "plugin", read_paths="[granted]")
    granted = tmp_path / "granted"
    granted.mkdir()
    acts = ["read_secret", "read_proc", "write_root", "connect_tcp", "signal_host", "execute", "fork_one", "find_descriptors"]
    settings: dict[str, object] = {"secret": str(secret), "granted": str(granted), "process": str(os.getpid())}
    nested = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "4321", "--gid", "4321", "--disable-userns"]
    seen = observe(folder, tmp_path, acts, settings, user=USER, prefix=nested)
    assert seen["degraded"] is True
    acts_seen = seen["acts"]
    for act, confined in ((act, acts_seen[act]["confined"]) for act in acts):
        assert confined["degraded"] is True, act
    answers = {act: acts_seen[act]["log"] for act in acts if act != "execute"}
    assert answers == {
        "read_secret": [f"read_secret answered {errno.EACCES}"],
        "read_proc": [f"read_proc answered {errno.EACCES}"],
        "write_root": [f"write_root answered {errno.EPERM}"],
        "connect_tcp": [f"connect_tcp answered {errno.EPERM}"],
        "signal_host": [f"signal_host answered {errno.EPERM}"],
        "fork_one": [f"fork_one answered {errno.EPERM}"],
        "find_descriptors": [f"find_descriptors answered {errno.ENOENT}"],
    }
    assert acts_seen["execute"]["causes"] == ["forbidden-call"]
