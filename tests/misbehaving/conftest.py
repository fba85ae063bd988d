"""The plugins of ``plugins/``, each compiled with good.c, and the neighbour that has to notice nothing of them."""

from __future__ import annotations

import functools
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


@pytest.fixture
def misbehaving(tmp_path: Path, good: Callable[..., Path]) -> MakeMisbehaving:
    """Makes a plugin's folder of one case."""

    def make(case: Case) -> Path:
        folder = tmp_path / case.name
        folder.mkdir()
        macros = (f'-DCHAIN="{case.chain}"', f'-DCAPABILITY="{case.capability}"')
        source = SOURCES / case.source
        objects = [folder / "plugin.o"]
        _compile(source, objects[0], *macros)
        if case.name != "missing_export":
            objects.append(good(*macros))
        linker = "g++" if source.suffix == ".cpp" else "gcc"
        subprocess.run([linker, "-shared", "-pthread", "-o", folder / "plugin.so", *objects], check=True)
        fields = {
            "id": PLUGIN,
            "name": "misbehaving",
            "version": '"1.0.0"',
            "chain": case.chain,
            "capabilities": f"[{case.capability}]",
            "binary": "./plugin.so",
            "restart": "never",
            "resources": "{memory: 16MB}",
            "security": "{sandbox: false}",
        }
        if case.heartbeat:
            fields["heartbeat"] = case.heartbeat
        (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        return folder

    return make
