"""The plugins of ``plugins/``, each compiled with good.c, and the neighbour that has to notice nothing of them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import supervm_rt
from tests.misbehaving.expectations import Case
from tests.misbehaving.support import PLUGIN, SOURCES, MakeMisbehaving
from tests.runtime.conftest import libraries, make_plugin, node

__all__ = ["libraries", "make_plugin", "misbehaving", "node"]

FLAGS = ("-D_GNU_SOURCE", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-infinite-recursion", "-fPIC", "-pthread")


def _compile(source: Path, target: Path, *flags: str) -> None:
    compiler = ("g++", "-std=c++17", "-fno-gnu-unique") if source.suffix == ".cpp" else ("gcc", "-std=c11")
    command = [*compiler, *FLAGS, "-fvisibility=hidden", f"-I{supervm_rt.get_include()}", *flags, "-c", source, "-o", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles good.c, once for each set of macros."""
    folder = tmp_path_factory.mktemp("good")

    @functools.cache
    def compile_good(*macros: str) -> Path:
        target = folder / f"good-{len(list(folder.iterdir()))}.o"
        _compile(SOURCES / "good.c", target, *macros)
        return target

    return compile_good


@pytest.fixture(scope="session")
def linked(tmp_path_factory: pytest.TempPathFactory, good: Callable[..., Path]) -> Callable[[Case], Path]:
    """Makes the library of a case, once for all placements."""
    folder = tmp_path_factory.mktemp("misbehaving")

    @functools.cache
    def link(name: str, language: str, chain: str, capability: str) -> Path:
        macros = (f'-DCHAIN="{chain}"', f'-DCAPABILITY="{capability}"')
        objects = [folder / f"{name}.o"]
        _compile(SOURCES / f"{name}.{language}", objects[0], *macros)
        if name != "missing_export":
            objects.append(good(*macros))
        target = folder / f"{name}.so"
        linker = "g++" if language == "cpp" else "gcc"
        subprocess.run([linker, "-shared", "-pthread", "-o", target, *objects], check=True)
        return target

    return lambda case: link(case.name, case.language, case.chain, case.capability)


@pytest.fixture
def misbehaving(tmp_path: Path, linked: Callable[[Case], Path]) -> MakeMisbehaving:
    """Makes a plugin's folder of one case."""

    def make(case: Case) -> Path:
        folder = tmp_path / case.name
        folder.mkdir()
        shutil.copy(linked(case), folder / "plugin.so")
        fields = {
            "id": PLUGIN,
            "name": "misbehaving",
            "version": '"1.0.0"',
            "chain": case.chain,
            "capabilities": f"[{case.capability}]",
            "binary": "./plugin.so",
            "restart": "never",
            "resources": "{memory: 128MB}",
            "security": "{sandbox: false}",
        }
        if case.heartbeat:
            fields["heartbeat"] = case.heartbeat
        (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        return folder

    return make
