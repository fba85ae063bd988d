"""Every system call by its number, whether a kernel has it or not, answers as the profile says (clauses S1, M1)."""

from __future__ import annotations

import errno
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from supervm_rt.transports.native.child.seccomp import SHIPPED, Condition, Rule, escapes, read_profile
from tests.sandbox.support import make_attacker, observe

NUMBERS = 600
ARGUMENT = (1 << 64) - 1
"""What the attacker gives for each argument: no descriptor, no address, every flag."""
NOT_SAID = {"exit", "exit_group", "rt_sigreturn"}
"""These end the process by themselves."""
ENOSYS_TO_ALL = {"clone3"}
TO_ITSELF_ONLY = {"tgkill"}
"""What the runner adds to every profile: to its own process alone."""
OF_THE_KERNEL = {335, 336} if platform.machine() == "x86_64" else set()
"""uretprobe and uprobe. Later kernels make them past every seccomp program; whoever calls them but the kernel's own code ends by
SIGILL."""


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """The calls that the headers of this machine know."""
    macros = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"], capture_output=True, text=True, check=True
    )
    found = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)\n", macros.stdout)}
    assert {"read", "execve", "clone3"} <= set(found)
    return found


@pytest.fixture(scope="module", params=SHIPPED)
def swept(request: pytest.FixtureRequest, numbers: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("attacker")
    attacker = make_attacker(folder / "plugin", profile=request.param, read_paths="[]", resources="{}")
    ends = {name: numbers[name] for name in escapes() if name in numbers}
    acts = ["sweep", *(f"number_{number}" for number in (*ends.values(), *OF_THE_KERNEL))]
    settings: dict[str, object] = {"skipped": " ".join(map(str, (*ends.values(), *OF_THE_KERNEL)))}
    seen = observe(attacker, folder, acts, settings, user=os.geteuid())["acts"]
    return {"profile": request.param, "ends": ends, "acts": seen, "letters": "".join(seen["sweep"]["log"])}


def holds(condition: Condition) -> bool:
    match condition.operator:
        case "==":
            return condition.value == ARGUMENT
        case "<=":
            return condition.value >= ARGUMENT
    return condition.mask & ARGUMENT == condition.value


def allowed(rule: Rule) -> bool:
    return all(holds(condition) for condition in rule.conditions)


def test_a_call_that_the_profile_does_not_list_is_refused(swept: dict[str, Any], numbers: dict[str, int], tmp_path: Path) -> None:
    letters = swept["letters"]
    assert len(letters) == NUMBERS, swept["acts"]["sweep"]["failures"]
    assert swept["acts"]["sweep"]["failures"] == []
    rules = read_profile(swept["profile"], plugin_folder=tmp_path).sections["running"]
    listed = {rule.call for rule in rules if allowed(rule)} - TO_ITSELF_ONLY
    names = {number: name for name, number in numbers.items()}
    refused = [number for number in range(NUMBERS) if letters[number] == "P"]
    for number in range(NUMBERS):
        name, letter = names.get(number, ""), letters[number]
        if name in NOT_SAID or number in OF_THE_KERNEL or number in swept["ends"].values():
            assert letter == "x"
        elif name in ENOSYS_TO_ALL:
            assert letter == "N", name
        elif name in listed:
            assert letter != "P", f"{name} is listed and refused"
        else:  # N: newer than what refuses it by name
            assert letter == "P" or (letter == "N" and number > max(refused)), f"{name or number} answered {letter}"
    assert sum(letter == "." for letter in letters) > 30


def test_a_way_out_ends_the_process(swept: dict[str, Any]) -> None:
    assert len(swept["ends"]) > 30
    for name, number in swept["ends"].items():
        entry = swept["acts"][f"number_{number}"]
        assert entry["causes"] == ["forbidden-call"], name
        assert entry["log"] == [], name


@pytest.mark.parametrize("number", OF_THE_KERNEL)
def test_what_the_kernel_lets_pass_gains_nothing(number: int, swept: dict[str, Any]) -> None:
    entry = swept["acts"][f"number_{number}"]
    answers = [[f"number_{number} answered {error}"] for error in (errno.EPERM, errno.ENOSYS, errno.ENXIO)]
    assert entry["causes"] == ["crash"] or entry["log"] in answers, entry


def test_outside_such_numbers_are_calls(numbers: dict[str, int], tmp_path: Path) -> None:
    """The positive control: in process the kernel answers those that the sandbox refuses, in its own way."""
    attacker = make_attacker(tmp_path / "plugin", security="{sandbox: false}")
    harmless = ("getppid", "getpgrp", "umask", "sched_getscheduler", "capget", "pidfd_open", "setns", "process_vm_readv")
    acts = [f"number_{numbers[name]}" for name in harmless if name in numbers]
    seen = observe(attacker, tmp_path, acts, {}, user=os.geteuid())["acts"]
    for act in acts:
        assert seen[act]["failures"] == []
        assert len(seen[act]["log"]) == 1
        assert seen[act]["log"] != [f"{act} answered {errno.EPERM}"]
