"""Plugins that are not in C: what cannot run in process, and what their languages do at the end (clause T1, T2)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartPolicy, RuntimeConfig
from supervm_rt.errors import LoadError
from supervm_rt.transports.native.library import inspect_library
from tests.sandbox.support import ROOT, observe

EXAMPLES = ROOT / "examples"
BUILT = ROOT / "build/examples"


@pytest.fixture(scope="module")
def in_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp")
    shutil.copy(EXAMPLES / "cpp/plugin.yaml", folder)
    command = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", f"-I{supervm_rt.get_include()}", "-pthread"]
    subprocess.run([*command, "-o", folder / "plugin.so", EXAMPLES / "cpp/plugin.cpp"], check=True)
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


@pytest.mark.nodes
@pytest.mark.parametrize(("name", "says"), [("rust", "hello from Rust"), ("go", "hello from Go")])
def test_rust_and_go_stream_their_blocks(name: str, says: str, tmp_path: Path) -> None:
    events: list[HostEvent] = []
    plugin = PluginConfig(path=BUILT / name, restart=RestartPolicy.NEVER)
    config = RuntimeConfig(store=tmp_path / "store.db", policy=PolicyLevel.DEV, plugins=(plugin,))

    async def main() -> None:
        async with supervm_rt.open_runtime(config, receivers=(events.append,)) as runtime:
            with trio.fail_after(60):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            assert status.failure is None, status.failure
            assert status.placement == "child"
            assert runtime.chains["dev"].blocks == 10
        assert runtime.plugins[status.plugin].state is PluginState.UNLOADED
        assert runtime.plugins[status.plugin].failure is None

    trio.run(main)
    assert [event.message for event in events if event.kind is EventKind.PLUGIN_LOG] == [says]
