"""The library that stands between a process and its files does what it is told, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.crash import shim
from tests.crash.power import read_journal

CALLS = """
import ctypes, errno, json, os, sys
folder, done = sys.argv[1], []
library = ctypes.CDLL(None)
library.crash_state()
assert library.crash_arm() == 0
def say(name, function, *arguments):
    try:
        done.append([name, function(*arguments)])
    except OSError as error:
        done.append([name, errno.errorcode[error.errno]])
def opened(path):
    global file
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    return "ok"
say("create", opened, folder + "/a")
say("write", os.write, file, b"12345678")
say("pwrite", os.pwrite, file, b"abcdefgh", 8)
say("writev", os.writev, file, [b"", b"ij", b"kl"])
say("truncate", os.ftruncate, file, 5)
say("fsync", os.fsync, file)
say("rename", os.rename, folder + "/a", folder + "/b")
place = os.open(folder, os.O_RDONLY)
say("fsync", os.fsync, place)
say("unlink", os.unlink, folder + "/b")
other = os.open(folder + "-other", os.O_RDWR | os.O_CREAT)
say("other", os.write, other, b"12345678")
print(json.dumps(done))
"""
UNDISTURBED: list[list[object]] = [
    ["create", "ok"],
    ["write", 8],
    ["pwrite", 8],
    ["writev", 2],
    ["truncate", None],
    ["fsync", None],
    ["rename", None],
    ["fsync", None],
    ["unlink", None],
    ["other", 8],
]


def run(folder: Path, action: str, at: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim.library()),
        "SUPERVM_CRASH_FOLDER": str(folder),
        "SUPERVM_CRASH_ACTION": action,
        "SUPERVM_CRASH_AT": str(at),
        "SUPERVM_CRASH_JOURNAL": f"{folder}.journal",
    }
    return subprocess.run(
        [sys.executable, "-c", CALLS, str(folder)], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("at", range(2, 10))
@pytest.mark.parametrize(("action", "code"), [("enospc", "ENOSPC"), ("eio", "EIO")])
def test_one_call_fails_and_only_that(tmp_path: Path, action: str, code: str, at: int) -> None:
    done = run(tmp_path / "folder", action, at)
    said = json.loads(done.stdout)
    expected = [list(one) for one in UNDISTURBED]
    expected[at - 1][1] = code
    if at == 7:
        expected[8][1] = "ENOENT"  # what was not renamed
    assert said == expected, done.stderr


def test_all_later_calls_fail_but_removals(tmp_path: Path) -> None:
    said = json.loads(run(tmp_path / "folder", "enospc-on", 3).stdout)
    assert [answer for _, answer in said] == ["ok", 8, *["ENOSPC"] * 6, "ENOENT", 8]


def test_a_short_write_makes_its_half(tmp_path: Path) -> None:
    said = json.loads(run(tmp_path / "folder", "short", 2).stdout)
    assert said[1] == ["write", 4]
    assert read_journal(tmp_path / "folder.journal")[1].data == b"1234"


@pytest.mark.parametrize(("action", "left"), [("kill", b""), ("kill-half", b"1234"), ("kill-after", b"12345678")])
def test_a_kill_leaves_what_was_written_before(tmp_path: Path, action: str, left: bytes) -> None:
    done = run(tmp_path / "folder", action, 2)
    assert (done.returncode, done.stdout) == (-SIGKILL, "")
    assert (tmp_path / "folder/a").read_bytes() == left


def test_the_journal_names_every_call(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path / "folder", "", 0).stdout) == UNDISTURBED
    found = [(call.kind, call.offset, call.name, call.other, call.data) for call in read_journal(tmp_path / "folder.journal")]
    assert found == [
        ("C", 0, "a", "", b""),
        ("W", 0, "a", "", b"12345678"),
        ("W", 8, "a", "", b"abcdefgh"),
        ("W", 8, "a", "", b"ij"),
        ("T", 5, "a", "", b""),
        ("S", 0, "a", "", b""),
        ("R", 0, "a", "b", b""),
        ("D", 0, "folder", "", b""),
        ("U", 0, "b", "", b""),
    ]


@pytest.mark.parametrize("action", ["explode", ""])
def test_an_order_that_it_does_not_know_is_refused(tmp_path: Path, action: str) -> None:
    done = run(tmp_path / "folder", action, 1)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
