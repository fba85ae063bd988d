"""What a hostile plugin can try against its own host: each is recognised, named, and no concern of the neighbours."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.support import make_attacker, observe

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
FLOODS = ("flood_logs", "flood_metrics", "flood_stdout", "flood_line_ends", "flood_wakes", "flood_notices")
USER = os.geteuid()


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_attacker(tmp_path_factory.mktemp("attacker") / "plugin", read_paths="[]")


@pytest.fixture(scope="module")
def seen(attacker: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    acts: dict[str, Any] = observe(
        attacker, tmp_path_factory.mktemp("work"), [*CAUSES, "print", "punch_ring"], {}, user=USER, seconds=2
    )["acts"]
    return acts


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


def test_without_a_sandbox_they_can_and_the_words_of_the_host_are_writable(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", security="{sandbox: false}")
    acts = observe(folder, tmp_path, ["write_host_page", "punch_ring"], {}, user=USER)["acts"]
    assert acts["punch_ring"]["log"] == ["remove_pages answered 0", "remove_pages_by_high_bits answered 0"]
    assert acts["write_host_page"]["log"] == ["protect_host_page answered 0", "write_host_page answered 0"]


def test_what_it_prints_becomes_log_lines(seen: dict[str, Any]) -> None:
    assert sorted(seen["print"]["log"]) == ["stderr: hello from \\x1b[31mstderr", "stdout: hello from stdout"]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_does_not_hold_the_host(flood: str, attacker: Path, tmp_path: Path) -> None:
    """The node still starts, watches and stops another plugin, within observe's own deadlines."""
    acts = observe(attacker, tmp_path, [flood, "print"], {}, user=USER, seconds=5)["acts"]
    assert len(acts["print"]["log"]) == 2
    assert acts["print"]["state"] == "unloaded"
    assert acts[flood]["state"] in {"unloaded", "quarantined"}


@pytest.mark.parametrize("act", ["spin_in_init", "close_all"])
def test_a_call_that_never_answers_is_killed(act: str, attacker: Path, tmp_path: Path) -> None:
    seen = observe(attacker, tmp_path, [act], {}, user=USER, seconds=1, initialise=1)["acts"][act]
    # One that closed its runner's channel ends with it, or waits in it.
    assert seen["causes"] in (["hang"], ["exit"] if act == "close_all" else [])
    assert seen["state"] == "unloaded"


CONSTRUCTORS = {
    "read_secret": errno.ENOENT,
    "fork_one": errno.EPERM,
    "make_code": errno.EPERM,
    "read_proc": errno.ENOENT,
    "execute": "forbidden-call",
    "trace": "forbidden-call",
    "call_32_bit": "forbidden-call",
    "exit_0": "exit",
    "exit_159": "crash",
    "signal_159": errno.EPERM,
    "crash": "crash",
    "install_program": errno.EPERM,
    "map_over_program": errno.EPERM,
    "unmap_program": errno.EPERM,
    "move_over_program": errno.EPERM,
}


@pytest.mark.parametrize("attack", CONSTRUCTORS)
def test_a_constructor_is_confined_before_it_runs(attack: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = make_attacker(tmp_path / "plugin", f"-DCONSTRUCTOR={attack}", f'-DSECRET="{secret}"', read_paths="[]")
    seen = observe(folder, tmp_path, ["nothing"], {}, user=USER)["acts"]["nothing"]
    expected = CONSTRUCTORS[attack]
    if isinstance(expected, int):
        assert seen["log"] == [f"{attack} answered {expected}"]
    else:
        assert seen["causes"] == [expected]
        assert seen["log"] == []


def test_what_a_constructor_says_in_the_runners_place_is_not_believed(tmp_path: Path) -> None:
    """The host asks the kernel what is around the process."""
    folder = make_attacker(tmp_path / "plugin", "-DFORGE_LOADED", read_paths="[]")
    seen = observe(folder, tmp_path, ["nothing"], {}, user=USER)["acts"]["nothing"]
    assert seen["causes"] == ["load"], seen
    assert "the second seccomp program is not around it" in seen["failures"][0]
    assert seen["state"] == "unloaded"


def test_a_thread_that_a_constructor_left_is_under_the_second_program_too(tmp_path: Path) -> None:
    folder = make_attacker(tmp_path / "plugin", "-DLEFT_THREAD", read_paths="[]")
    seen = observe(folder, tmp_path, ["nothing"], {}, user=USER)["acts"]["nothing"]
    assert seen["log"] == ["opened_while_loading answered 0", f"left_thread answered {errno.EPERM}"]


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
