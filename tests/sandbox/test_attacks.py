"""The attack corpus: each attack succeeds without the sandbox, and inside it sees what is said here (clauses S1, S3, T2)."""

from __future__ import annotations

import errno
import signal
from pathlib import Path
from typing import Any

import pytest

from supervm_rt.transports.native.child.seccomp import SHIPPED
from tests.sandbox.support import Aim, make_attacker, observe, try_outside

FORBIDDEN = "forbidden-call"
EXPECTED: dict[str, int | str] = {
    "read_secret": errno.ENOENT,
    "list_secrets": errno.ENOENT,
    "write_beside": errno.EPERM,
    "write_root": errno.EPERM,
    "read_proc": errno.ENOENT,
    "read_device": errno.ENOENT,
    "fork_one": errno.EPERM,
    "execute": FORBIDDEN,
    "map_shared": errno.EPERM,
    "map_growing": errno.EPERM,
    "map_code": errno.EPERM,
    "make_code": errno.EPERM,
    "make_memfd": errno.EPERM,
    "hog_memory": errno.ENOMEM,
    "hog_by_stack": errno.EPERM,
    "connect_tcp": errno.EPERM,
    "send_udp": errno.EPERM,
    "make_unix_socket": errno.EPERM,
    "make_netlink_socket": errno.EPERM,
    "trace": FORBIDDEN,
    "read_process": FORBIDDEN,
    "signal_host": errno.EPERM,
    "signal_thread": errno.EPERM,
    "signal_all": errno.EPERM,
    "new_namespace": FORBIDDEN,
    "clone_namespace": errno.EPERM,
    "clone_own_files": errno.EPERM,
    "clone_3": errno.ENOSYS,
    "load_bpf": FORBIDDEN,
    "set_up_uring": FORBIDDEN,
    "use_keys": FORBIDDEN,
    "open_process": FORBIDDEN,
    "watch_performance": FORBIDDEN,
    "handle_faults": FORBIDDEN,
    "execute_at": FORBIDDEN,
    "join_namespace": FORBIDDEN,
    "steal_descriptor": FORBIDDEN,
    "become_dumpable": errno.EPERM,
    "write_own_memory": errno.EPERM,
    "make_pair": errno.EPERM,
    "clear_death_signal": errno.EPERM,
    "leave_session": errno.EPERM,
    "raise_limit": errno.EPERM,
    "clear_nonblock": errno.EPERM,
    "read_environment": errno.ENOENT,
    "find_descriptors": errno.ENOENT,
    "call_x32": FORBIDDEN,
    "call_32_bit": FORBIDDEN,
    "crash": "crash",
    "abort_it": "crash",
    "exit_0": "exit",
    "exit_159": "crash",  # it cannot look like SIGSYS: the call is refused, and then it has nowhere to go
    "signal_159": errno.EPERM,
    "install_program": errno.EPERM,
    "map_over_program": errno.EPERM,
    "unmap_program": errno.EPERM,
    "move_over_program": errno.EPERM,
}
NOT_WITHOUT_RIGHTS = {"new_namespace", "clone_namespace", "load_bpf"}
"""What an ordinary user may not do anyway."""
OF_THE_KERNEL = {"call_x32", "call_32_bit", "set_up_uring", "clone_namespace", "watch_performance", "handle_faults"}
"""What a kernel may be built or set up without: there is nothing to show then."""
AGAINST_THE_HOST = ("forge_control", "forge_answer", "wake_host")
"""What these write arrives at who listens; inside they are in test_against_the_host."""
ENDS = {"execute": 0, "execute_at": 0, "crash": -11, "abort_it": -6, "exit_0": 0, "exit_159": 159, "signal_159": -signal.SIGSYS}
"""Attacks that end the process also outside, and how."""


@pytest.fixture(scope="module", params=SHIPPED)
def sandboxed(
    request: pytest.FixtureRequest, aim: Aim, inherited: list[int], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """All attacks, each by a plugin of its own in one node."""
    folder = make_attacker(tmp_path_factory.mktemp("attacker") / "plugin", profile=request.param)
    acts = [*EXPECTED, "make_thread", "thread_bomb", "unknown_call"]
    acts_seen: dict[str, Any] = observe(folder, aim.work, acts, aim.settings, user=aim.user, inherited=inherited)["acts"]
    (aim.work / "store.db").unlink()
    return {"profile": request.param, **acts_seen}


@pytest.mark.parametrize("attack", [*EXPECTED, *AGAINST_THE_HOST])
def test_the_attack_succeeds_without_a_sandbox(attack: str, aim: Aim, control: Path, inherited: list[int]) -> None:
    done = try_outside(control, attack, aim, aim.work, inherited)
    if attack in ENDS:
        assert done.returncode == ENDS[attack]
        return
    answer = int(done.stdout) if done.returncode == 0 else done.returncode
    if answer != 0 and attack in OF_THE_KERNEL:
        pytest.skip(f"absent in this kernel: {attack} answers {answer} outside too")
    if answer != 0 and aim.user != 0 and attack in NOT_WITHOUT_RIGHTS:
        pytest.skip("needs root: an ordinary user may not do this outside either")
    assert answer == 0


@pytest.mark.parametrize("attack", EXPECTED)
def test_the_attack_fails_inside(attack: str, sandboxed: dict[str, Any]) -> None:
    seen, expected = sandboxed[attack], EXPECTED[attack]
    if isinstance(expected, int):
        assert seen["log"] == [f"{attack} answered {expected}"]
        assert seen["failures"] == []
        assert seen["state"] == "unloaded"
    else:
        assert seen["causes"] == [expected], seen
        assert not [line for line in seen["log"] if line.endswith("answered 0")]


def test_what_a_profile_allows_works(sandboxed: dict[str, Any]) -> None:
    allowed = 0 if sandboxed["profile"] == "baseline" else errno.EPERM
    assert sandboxed["make_thread"]["log"] == [f"make_thread answered {allowed}"]


def test_threads_come_to_an_end(sandboxed: dict[str, Any], aim: Aim, control: Path) -> None:
    """64 processes and threads in all: bubblewrap's own, the runner's two, and those of the plugin."""
    if sandboxed["profile"] == "strict":
        assert sandboxed["thread_bomb"]["log"] == [f"thread_bomb answered {1000 * errno.EPERM}"]
        return
    assert sandboxed["thread_bomb"]["log"] == [f"thread_bomb answered {1000 * errno.EAGAIN + 61}"]
    assert sandboxed["thread_bomb"]["state"] == "unloaded"
    assert try_outside(control, "thread_bomb", aim, aim.work).stdout == "200\n", "as many as it tried"


def test_a_call_that_no_kernel_has_says_so(sandboxed: dict[str, Any]) -> None:
    assert sandboxed["unknown_call"]["log"] == ["unknown_call answered 0"]


def test_the_host_says_what_is_around_it(sandboxed: dict[str, Any], aim: Aim) -> None:
    confined = sandboxed["read_secret"]["confined"]
    assert confined["degraded"] is False
    assert confined["seccomp_profile"] == sandboxed["profile"]
    if aim.user == 0:
        assert confined["user"] >= 65_534
        assert sandboxed["read_secret"]["confined"]["user"] != sandboxed["read_proc"]["confined"]["user"], "each has its own"
    else:
        assert confined["user"] == aim.user
