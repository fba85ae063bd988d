"""Plugins that are not in C: what cannot run in process, and what their languages do at the end (clause T1, T2)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import supervm_rt
from supervm_rt.errors import LoadError
from supervm_rt.transports.native.library import inspect_library
from tests.sandbox.support import SOURCES, make_attacker, observe


@pytest.fixture(scope="module")
def in_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_attacker(tmp_path_factory.mktemp("cpp") / "plugin", read_paths="[]", resources="{memory: 256MiB}")
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", f"-I{supervm_rt.get_include()}", "-pthread"]
    subprocess.run([*command, "-o", folder / "plugin.so", SOURCES / "throwing.cpp"], check=True)
    return folder


def test_cpp_with_threads_and_exceptions(in_cpp: Path, tmp_path: Path) -> None:
    """The library has process-wide symbols, for which it is refused in process, and runs in a process of its own."""
    with pytest.raises(LoadError, match="GNU_UNIQUE"):
        inspect_library((in_cpp / "plugin.so").read_bytes())
    seen = observe(in_cpp, tmp_path, ["works"], {}, user=os.geteuid())["acts"]["works"]
    assert seen["log"] == ["one that is caught"]
    assert seen["failures"] == []
    assert seen["state"] == "unloaded"


def test_an_exception_that_leaves_it_is_a_crash_of_its_own_process(in_cpp: Path, tmp_path: Path) -> None:
    seen = observe(in_cpp, tmp_path, ["throws"], {}, user=os.geteuid())["acts"]["throws"]
    assert seen["causes"] == ["crash"]
    assert "SIGABRT" in seen["failures"][0]
    assert "one that is not" in seen["failures"][0]
