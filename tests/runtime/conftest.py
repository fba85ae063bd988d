"""Plugins for tests: compiled from C, each in a folder of its own with its manifest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import supervm_rt
from supervm_rt.trust.policy import Placement
from tests.runtime.support import MakePlugin, Node

SOURCES = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compiles a source of ``plugins/``, once for each set of macros."""
    folder = tmp_path_factory.mktemp("libraries")

    def compile_plugin(name: str, macros: str = "") -> Path:
        target = folder / f"{name}-{abs(hash(macros))}.so"
        if not target.exists():
            command = [
                "cc",
                "-std=c11",
                "-D_GNU_SOURCE",
                "-O1",
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
                "-Wall",
                "-Wextra",
                "-Werror",
            ]
            command += [
                *macros.split(),
                f"-I{supervm_rt.get_include()}",
                "-pthread",
                "-o",
                str(target),
                str(SOURCES / f"{name}.c"),
            ]
            subprocess.run(command, check=True)
        return target

    return compile_plugin


@pytest.fixture
def make_plugin(tmp_path: Path, libraries: Callable[[str, str], Path]) -> MakePlugin:
    """Makes a plugin's folder: the library of that name, and a manifest with ``changes`` in place of the usual fields."""

    def make(source: str = "actor", macros: str = "", **changes: str) -> Path:
        folder = tmp_path / f"plugin-{len(list(tmp_path.glob('plugin-*')))}"
        folder.mkdir()
        (folder / "plugin.so").write_bytes(libraries(source, macros).read_bytes())
        fields = {
            "id": "org.example.actor",
            "name": "actor",
            "version": '"1.0.0"',
            "chain": "dev",
            "capabilities": "[block_stream]",
            "binary": "./plugin.so",
            "restart": "never",
            "security": "{sandbox: false}",
        } | changes
        (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        return folder

    return make


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(tmp_path / "store.db", getattr(request, "param", Placement.IN_PROCESS))
