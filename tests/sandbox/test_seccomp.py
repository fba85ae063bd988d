"""Profiles: how they are read, whose are taken, and what they can never allow (clause M1)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.native.child.seccomp import (
    SHIPPED,
    Condition,
    Rule,
    compile_profile,
    escapes,
    parse_profile,
    read_profile,
)
from tests.sandbox.support import make_attacker, observe


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_are_programs(name: str, tmp_path: Path) -> None:
    profile = read_profile(name, plugin_folder=tmp_path)
    loading = compile_profile(profile, ("running", "loading"))
    running = compile_profile(profile, ("running",))
    assert len(loading) % 8 == len(running) % 8 == 0
    assert len(loading) > len(running) > 0


def test_a_profile_is_read_as_it_is_written() -> None:
    profile = parse_profile("# words\n[running]\nread  # why\nmmap a2 & PROT_EXEC == 0, a3 == 0x22\n", source="own")
    assert profile.sections["running"] == (
        Rule("read"),
        Rule("mmap", (Condition(2, "&", 0, 4), Condition(3, "==", 0x22))),
    )
    assert profile.sections["loading"] == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("read\n", "line 1: a call before the first section"),
        ("[anything]\n", r"line 1: \[anything\] is not one of"),
        ("[running]\n\nRead\n", "line 3: 'Read' is not a system call"),
        ("[running]\nexecve\n", "line 2: execve is a way out"),
        ("[running]\nmmap a2 & PROT_EXEC\n", "line 2: .* is not a condition"),
        ("[running]\nmmap a2 == NO_SUCH_NAME\n", "neither a number nor a known name"),
        ("[running]\nmmap a2 & 1 <= 0\n", "a mask goes with =="),
        ("[running]\nmadvise a2 != 9\n", "is not a condition"),
        ("[running]\nmmap a2 == 0, a2 == 1\n", "two conditions about one argument"),
        ("include own\n", "only strict and baseline can be included"),
    ],
)
def test_what_is_wrong_with_a_profile_is_named(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_profile(text, source="own")


def test_a_call_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no system call is named raed"):
        compile_profile(parse_profile("[running]\nraed\n", source="own"), ("running",))


@pytest.mark.parametrize("call", ["execve", "ptrace", "bpf", "mount", "io_uring_setup", "process_vm_readv"])
def test_ways_out_are_listed(call: str) -> None:
    assert call in escapes()


def test_a_profile_of_the_plugin_itself_is_not_taken(tmp_path: Path) -> None:
    own = tmp_path / "own.profile"
    own.write_text("include baseline\n")
    with pytest.raises(ConfigurationError, match="in the plugin's own folder"):
        read_profile(str(own), plugin_folder=tmp_path)
    with pytest.raises(ConfigurationError, match="there is no seccomp profile 'own.profile'"):
        read_profile("own.profile", plugin_folder=tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_profile(str(tmp_path / "none"), plugin_folder=tmp_path / "plugin")
    own.chmod(0o666)
    with pytest.raises(ConfigurationError, match="others can write"):
        read_profile(str(own), plugin_folder=tmp_path / "plugin")


@pytest.mark.parametrize(("place", "says"), [("outside", "is not a file"), ("plugin", "in the plugin's own folder")])
def test_a_profile_that_is_no_file_is_not_opened(tmp_path: Path, place: str, says: str) -> None:
    """A manifest names it: to open a FIFO can last for ever, and to open a device can be an act."""
    fifo = tmp_path / place / "own.profile"
    fifo.parent.mkdir()
    os.mkfifo(fifo, 0o600)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_profile, str(fifo), plugin_folder=tmp_path / "plugin")
        try:
            with pytest.raises(ConfigurationError, match=says):
                reading.result(timeout=10)
        finally:
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # whoever waits for a writer goes on
    with pytest.raises(ConfigurationError, match="is not a file"):
        read_profile("/dev/zero", plugin_folder=tmp_path / "plugin")


def test_an_operators_profile_counts(tmp_path: Path) -> None:
    """One that allows what baseline does not: a memfd."""
    own = tmp_path / "own.profile"
    own.write_text("include baseline\n[running]\nmemfd_create\n")
    folder = make_attacker(tmp_path / "plugin", profile=str(own))
    seen = observe(folder, tmp_path, ["make_memfd", "execute"], {}, user=os.geteuid())["acts"]
    assert seen["make_memfd"]["log"] == ["make_memfd answered 0"]
    assert seen["execute"]["causes"] == ["forbidden-call"]
