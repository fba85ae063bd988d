"""Remote plugins that the host starts: confined, identified by their own socket, and supervised (clauses T3, S1, L2, L5)."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from supervm_rt import Deadlines, EventKind, PluginState
from supervm_rt.runtime.status import describe
from supervm_rt.transports.native.child.cgroups import start_time
from supervm_rt.transports.native.child.host import Machine, machine
from supervm_rt.transports.native.child.storage import Storage, Way
from supervm_rt.transports.remote import launching
from supervm_rt.transports.remote.images import Layout
from supervm_rt.transports.remote.places import clear_places
from supervm_rt.transports.remote.transport import RemoteTransport
from supervm_rt.trust.policy import Decision, Policy, PolicyLevel
from tests.remote.messages import register, registered
from tests.remote.programs import LAUNCHED, program
from tests.remote.remains import nothing_left, places
from tests.remote.support import Served, peer, serving


async def tip(node: Served, height: int) -> None:
    with trio.fail_after(20):
        while (at := node.runtime.chains["dev"].tip) is None or at.height < height:
            await trio.sleep(0.005)
            status = node.runtime.plugins[LAUNCHED]
            assert not status.finished or status.failure is None, status.failure


@pytest.mark.parametrize("image", [False, True], ids=["executable", "image"])
def test_it_lives_in_the_sandbox_and_leaves_nothing(tmp_path: Path, image: bool) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, image=image)) as node:
            await tip(node, 10)
            (confined,) = node.seen.of(EventKind.PLUGIN_CONFINED)
            assert "seccomp baseline" in confined.message
            status = await node.runtime.stop(LAUNCHED)
            assert (status.state, status.failure, status.placement) == (PluginState.UNLOADED, None, "child")

    with nothing_left():
        trio.run(main)


def test_what_a_killed_node_left_goes_with_the_next_start(tmp_path: Path) -> None:
    """An unpacked image may be large."""
    with tempfile.TemporaryDirectory() as folder:
        left, other = Path(folder, "supervm-1-0-left"), Path(folder, f"supervm-{os.getpid()}-{start_time(os.getpid())}-mine")
        elsewhere = Path(folder, "supervm-2-0-namespace")
        for each in (left, other, elsewhere):
            (each / "image").mkdir(parents=True)
        held = os.open(elsewhere, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        clear_places(Path(folder))
        assert set(Path(folder).iterdir()) == {other, elsewhere}
        os.close(held)
    plugin = program(tmp_path / "plugin", 0)

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            await tip(node, 10)
            assert places()

    trio.run(main)


def unpacked(folder: Path) -> list[Path]:
    place = folder / "store.db.plugins/.unpacked"
    return list(place.iterdir()) if place.exists() else []


def test_an_image_is_unpacked_beside_the_storage_and_what_a_killed_node_left_goes(tmp_path: Path) -> None:
    left = tmp_path / "store.db.plugins/.unpacked/supervm-1-0-left"
    (left / "image").mkdir(parents=True)

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, image=True)) as node:
            await tip(node, 10)
            (place,) = unpacked(tmp_path)
            assert place != left
            begun, ended = node.seen.of(EventKind.REMOTE_UNPACKING)
            assert str(place) in begun.message
            assert ended.data["files"] == 2, "bin, bin/plugin"
            assert int(str(ended.data["bytes"])) > (place / "image/root/bin/plugin").stat().st_size

    trio.run(main)
    assert unpacked(tmp_path) == []


@pytest.mark.parametrize("ending", ["deadline", "stop", "end of the node"])
def test_unpacking_ends_when_it_is_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Between two files: what was unpacked so far is gone."""
    real = Layout._member
    files = []

    def slow(*arguments: Any, **more: Any) -> None:
        time.sleep(0.02)
        files.append(arguments)
        real(*arguments, **more)

    monkeypatch.setattr(Layout, "_member", slow)
    plugin = program(tmp_path / "plugin", 0, image=True, links={f"link-{number}": "/nowhere" for number in range(5_000)})
    deadlines = Deadlines(load=0.5) if ending == "deadline" else Deadlines(load=300)

    async def main() -> None:
        async with serving(tmp_path, plugin, deadlines=deadlines) as node:
            await node.seen.until(EventKind.REMOTE_UNPACKING)
            if ending == "deadline":
                failed = await node.seen.until(EventKind.PLUGIN_FAILED)
                assert "its sandbox was not ready within 0.5 s" in failed.message
                assert "raise deadlines.load" in failed.message
            elif ending == "stop":
                assert (await node.runtime.stop(LAUNCHED)).failure is None

    with nothing_left():
        trio.run(main)
    assert len(files) < 5_000
    assert unpacked(tmp_path) == []


@pytest.mark.parametrize(
    ("link", "resources"), [("supervm.sock", "{}"), ("storage", "{storage: 4MiB}")], ids=["socket", "storage"]
)
def test_a_link_of_an_image_is_not_where_the_host_mounts(tmp_path: Path, link: str, resources: str) -> None:
    """bubblewrap would follow it, and has the host's files under /oldroot meanwhile."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
        Path(outside).chmod(0o777)
        links = {link: f"/oldroot{outside}/made"}

        async def main() -> None:
            async with serving(tmp_path, program(tmp_path / "plugin", 0, image=True, links=links, resources=resources)) as node:
                failed = await node.seen.until(EventKind.PLUGIN_FAILED)
                assert f"/{link} is a link" in failed.message

        trio.run(main)
        assert not list(Path(outside).iterdir())


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"WorkingDir": "/nowhere"}, "its WorkingDir /nowhere is no folder in it"),
        ({"WorkingDir": "/way"}, "its WorkingDir /way is no folder in it"),
        ({"WorkingDir": "/bin/plugin"}, "its WorkingDir /bin/plugin is no folder in it"),
        ({"Cmd": ["x" * 200_000]}, "its command and environment are longer than"),
        ({"Env": [f"N{number}=x" for number in range(60_000)]}, "its command and environment are longer than"),
        ({"Cmd": ["\ud800"]}, "Cmd is not a list of texts"),
        ({"WorkingDir": "\ud800"}, "WorkingDir is no path"),
    ],
)
def test_how_an_image_is_to_be_started_is_its_own_fault(tmp_path: Path, config: dict[str, object], says: str) -> None:
    plugin = program(tmp_path / "plugin", 0, image=True, links={"way": "/nowhere"}, config=config)

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert says in failed.message
            assert failed.data["blame"] == "plugin"

    trio.run(main)


def test_an_image_with_more_names_in_its_root_than_can_be_granted(tmp_path: Path) -> None:
    plugin = program(tmp_path / "plugin", 0, image=True, links={f"{number:0200}": "bin" for number in range(1_000)})

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert "the names in its root folder are longer than" in failed.message
            assert failed.data["blame"] == "plugin"

    trio.run(main)


@pytest.mark.parametrize(
    ("folder", "resources"),
    [("/bin", "{}"), ("/way", "{}"), ("/storage", "{storage: 4MiB}")],
    ids=["folder", "link", "storage"],
)
def test_an_image_starts_in_its_working_folder(tmp_path: Path, folder: str, resources: str) -> None:
    config = {"WorkingDir": folder}
    plugin = program(tmp_path / "plugin", 0, image=True, links={"way": "/bin"}, config=config, resources=resources)

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            await tip(node, 10)

    trio.run(main)


def test_what_it_tries_fails(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 4)) as node:
            await node.seen.until(EventKind.PLUGIN_LOG, "tried all")
            assert not [event.message for event in node.seen.of(EventKind.PLUGIN_LOG) if "escape" in event.message]
            await tip(node, 10)

    trio.run(main)


def test_a_flood_of_line_ends_is_dropped_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 12)) as node:
            await tip(node, 10)
            dropped = await node.seen.until(EventKind.PLUGIN_DROPPED)
            assert int(str(dropped.data["dropped"])) >= 4_096

    trio.run(main)


def test_a_pause_is_no_silence_once_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was stopped for want of processor time could give no sign of life meanwhile."""
    real = launching.Program.start
    seen: list[tuple[launching.Program, RemoteTransport]] = []

    async def start(program: launching.Program, transport: RemoteTransport) -> None:
        seen.append((program, transport))
        await real(program, transport)

    monkeypatch.setattr(launching.Program, "start", start)

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, heartbeat="60", resources='{cpu: "0.5"}')) as node:
            await tip(node, 10)
            ((running, transport),) = seen
            assert running._quotas is not None
            running._quotas.pauses = False  # only the test does
            running._quotas._pause(stop=True)
            await trio.sleep(0.1)  # long beside the time until it is asked
            assert transport.silence() is None
            paused = time.monotonic()
            running._quotas._pause(stop=False)
            silence = transport.silence()
            assert silence is not None
            assert silence <= time.monotonic() - paused

    trio.run(main)


def test_a_crash_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 1)) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert (failed.data["cause"], "it crashed (SIGSEGV)" in failed.message) == ("crash", True), failed.message

    trio.run(main)


def test_one_that_exits_before_it_registers(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 2)) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert "ended by itself with status 7" in failed.message

    trio.run(main)


@pytest.mark.parametrize(
    ("status", "cause"), [(153, "forbidden-call"), (139, "forbidden-call"), (128, "forbidden-call"), (127, "exit"), (255, "exit")]
)
def test_no_status_looks_like_a_signal(tmp_path: Path, status: int, cause: str) -> None:
    """bubblewrap tells a signal as 128 and its number: what the kernel did to it could not be told from what it says."""
    plugin = program(tmp_path / "plugin", status)
    outside = subprocess.run([plugin.path / "plugin"], check=False)
    assert outside.returncode == status

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert failed.data["cause"] == cause, failed.message
            assert cause != "exit" or f"status {status}" in failed.message

    trio.run(main)


@pytest.mark.parametrize("late", [0.0, 0.3], ids=["in time", "late"])
def test_one_that_ends_before_it_is_looked_at_is_to_blame_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    """Whether its end is known already when the host looks, or not yet."""

    def look(*_: Any, **__: Any) -> str:
        time.sleep(late)
        return "/proc does not show it"

    monkeypatch.setattr(launching, "what_is_missing", look)

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 2)) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert "ended by itself with status 7" in failed.message

    trio.run(main)


def test_one_that_does_not_stop_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 3), deadlines=Deadlines(stop=0.5)) as node:
            await tip(node, 10)
            status = await node.runtime.stop(LAUNCHED)
            assert status.state is PluginState.UNLOADED
            assert "did not end its BlockExchange" in str(status.failure)

    with nothing_left():
        trio.run(main)


def test_nobody_else_can_register_in_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0)) as node:
            await tip(node, 10)
            async with peer(node.path) as raw:
                answer = await raw.call("Register", register(LAUNCHED))
                assert not registered(answer.messages[0])
            assert node.runtime.plugins[LAUNCHED].failure is None

    trio.run(main)


def test_its_socket_is_nobody_elses(tmp_path: Path) -> None:
    """Not even for one of the host's own user, who can reach it."""

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0)) as node:
            await tip(node, 10)
            (place,) = places()
            script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect('{place}/socket'); print(s.recv(1))"
            done = await trio.run_process([sys.executable, "-c", script], capture_stdout=True)
            assert done.stdout == b"b''\n"
            assert any(f"the socket of {LAUNCHED}" in each for each in node.seen.refusals())
            assert node.runtime.plugins[LAUNCHED].failure is None

    trio.run(main)


def test_a_script_is_no_executable(tmp_path: Path) -> None:
    plugin = program(tmp_path / "plugin", 0)
    (tmp_path / "plugin" / "plugin").write_text("#!/bin/sh\n")

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert "not an executable of this system" in failed.message

    trio.run(main)


def strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demands of Strict, without the signature that it wants and that cannot be verified yet."""
    real = Policy.decide

    def decide(*arguments: Any, **more: Any) -> Decision:
        return replace(real(*arguments, **more), level=PolicyLevel.STRICT)

    monkeypatch.setattr(Policy, "decide", decide)


@pytest.mark.parametrize(
    ("resources", "missing"),
    [
        ("{memory: 64MiB}", "the quota of memory"),
        ('{memory: 64MiB, cpu: "0.5"}', "the quota of memory and the quota of cpu"),
        ("{storage: 4MiB}", "the quota of storage"),
    ],
)
def test_strict_refuses_what_this_machine_cannot_enforce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: str, missing: str
) -> None:
    real = machine()
    less = Machine(real.bubblewrap, "", real.disables_namespaces, real.landlock, None)
    monkeypatch.setattr(launching, "machine", lambda: less)
    monkeypatch.setattr(launching, "prepare", lambda folder, *_: Storage(Way.FOLDER, folder))
    strictly(monkeypatch)

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, image=True, resources=resources, restart="always")) as node:
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert f"this machine cannot enforce {missing}" in failed.message
            assert failed.data["blame"] == "operator"
            await node.runtime.wait_idle()
            assert node.runtime.plugins[LAUNCHED].finished, "it would be so again"
            assert not node.seen.of(EventKind.REMOTE_UNPACKING), "before anything of it is looked into"

    with nothing_left():
        trio.run(main)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root has control groups and images for storage everywhere")
def test_strict_takes_what_is_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strictly(monkeypatch)
    resources = '{memory: 64MiB, cpu: "1.0", storage: 4MiB}'

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, resources=resources)) as node:
            await tip(node, 10)
            confinement = node.runtime.plugins[LAUNCHED].confinement
            assert confinement is not None
            assert confinement.unenforced == []
            listed = describe(node.runtime.plugins[LAUNCHED])
            assert listed["sandbox"] == "full"
            assert listed["quotas"] == {
                "memory": f"{confinement.quotas['cpu']}, rlimit",
                "cpu": confinement.quotas["cpu"],
                "storage": "file system",
            }

    trio.run(main)
