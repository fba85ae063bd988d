"""What an operator sees and sets of a plugin's network; without namespaces; and the example."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PolicyLevel, RuntimeConfig
from supervm_rt.errors import ConfigurationError
from supervm_rt.runtime.status import describe
from supervm_rt.transports.native.child import transport as child_transport
from supervm_rt.transports.native.child.host import machine
from supervm_rt.trust.policy import Placement
from tests.cli.support import supervm
from tests.network.support import OK, PLUGIN, Scene, server
from tests.sandbox.support import ORDINARY_USER, as_user

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/network"
CONFIGURATION = """
store: node.db
policy: dev
plugins:
  - path: plugin
    network: NETWORK
    settings: {port: "PORT", line: hello}
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    folder = tmp_path / "plugin"
    folder.mkdir()
    command = ["cc", "-std=c11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{supervm_rt.get_include()}", "-o", str(folder / "plugin.so"), str(EXAMPLE / "plugin.c")]
    subprocess.run(command, check=True)
    manifest = (EXAMPLE / "plugin.yaml").read_text()
    assert '"localhost:8080"' in manifest
    (folder / "plugin.yaml").write_text(manifest.replace("localhost:8080", "localhost:*"))
    return folder


@pytest.mark.unsanitized
@pytest.mark.parametrize("network", ["{}", "{allow: [127.0.0.0/8:*], rate: 5}"])
async def test_the_example_reaches_its_server(example: Path, network: str) -> None:
    events: list[HostEvent] = []
    with server(name="here\nthere") as there:
        file = example.parent / "node.yaml"
        file.write_text(CONFIGURATION.replace("NETWORK", network).replace("PORT", str(there.port)))
        async with supervm_rt.open_runtime(file, receivers=(events.append,)) as runtime:
            with trio.fail_after(60):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            described = describe(status)["network"]
    assert [event.message for event in events if event.kind is EventKind.PLUGIN_LOG] == ["here"]
    assert described["allow"] == ["localhost:*", "*.example.org:80"]
    assert described["operator_allow"] == (None if network == "{}" else ["127.0.0.0/8:*"])
    (decision,) = [event for event in events if event.kind is EventKind.POLICY_DECISION]
    assert decision.data["network"] == described


@pytest.mark.parametrize(
    ("network", "why"),
    [
        ("{allow: [example.org]}", r"plugins\[0\]\.network\.allow\[0\]: 'example.org' is not of the form HOST:PORT"),
        ("{reach: []}", "unknown key 'reach'"),
        ("{rate: 0}", r"network\.rate"),
        ("{sockets: many}", r"network\.sockets"),
    ],
)
def test_a_wrong_entry_of_the_configuration_is_named(tmp_path: Path, network: str, why: str) -> None:
    (tmp_path / "node.yaml").write_text(CONFIGURATION.replace("NETWORK", network).replace("PORT", "1"))
    with pytest.raises(ConfigurationError, match=why):
        RuntimeConfig.load(tmp_path / "node.yaml")


async def test_strict_asks_for_the_operators_own_list(scene: Scene) -> None:
    async with scene.open("has", allow=["*:443"], policy=PolicyLevel.STRICT) as runtime:
        with trio.fail_after(60):
            await runtime.wait_finished()
        failure = runtime.plugins[PLUGIN].failure
    assert "network.allow, and policy strict needs the operator's own list" in str(failure)
    assert scene.lines() == []


def test_inspect_shows_what_it_may_reach(example: Path) -> None:
    found = supervm("plugin", "inspect", example, "--no-load", "--json").json()
    assert found["manifest"]["network"] == {"allow": ["localhost:*", "*.example.org:80"], "listen": []}
    (asked,) = [extension for extension in found["extensions"] if extension["id"] == "supervm.net/1"]
    assert asked == {"id": "supervm.net/1", "known": True, "capability": "network", "granted": True}
    shown = supervm("plugin", "inspect", example, "--no-load").out
    assert "allow localhost:*, *.example.org:80" in shown
    assert "supervm.net/1 (needs network): granted" in shown


def test_inspect_says_where_nothing_is_listed(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(example, folder)
    text = (folder / "plugin.yaml").read_text()
    (folder / "plugin.yaml").write_text(text.partition("network:\n")[0])
    assert "supervm.net/1 (needs network): not granted" in supervm("plugin", "inspect", folder, "--no-load").out


@pytest.mark.unsanitized
@pytest.mark.parametrize("placement", [Placement.CHILD], indirect=True, ids=str)
async def test_without_namespaces_it_is_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    less = dataclasses.replace(machine(), bubblewrap=None, why_degraded="they are forbidden in this test")
    monkeypatch.setattr(child_transport, "machine", lambda: less)
    with server() as there, server() as secret:
        script = f"here; connect 127.0.0.1 {there.port} 5000 0; talk; escape {secret.port}"
        lines = await scene.run(script, allow=["127.0.0.1:*"], profile="strict")
        assert secret.visits == []
    assert lines[:2] == [f"connect: {OK}", "talk: server"]
    assert {line.partition(": ")[2] for line in lines[2:]} == {"EPERM"}


@pytest.mark.unsanitized
@pytest.mark.skipif(os.geteuid() != 0, reason="the tests themselves are an ordinary user's")
def test_an_ordinary_user_has_the_same() -> None:
    with tempfile.TemporaryDirectory(prefix="supervm-network-") as base:  # not below a folder that is closed to others
        os.chown(base, ORDINARY_USER, ORDINARY_USER)
        command = [
            *as_user(ORDINARY_USER),
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={base}/tests",
        ]
        subjects = ["test_escape.py", "test_connect.py::test_a_listed_address_is_reached", "test_bounds.py::test_sockets_at_once"]
        done = subprocess.run(
            [*command, *(f"tests/network/{subject}" for subject in subjects)],
            cwd=ROOT,
            env=os.environ | {"HOME": base},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
