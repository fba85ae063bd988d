"""Remote plugins that the host starts: confined, identified by their own socket, and supervised (clauses T3, S1, L2, L5)."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest
import trio

from supervm_rt import Deadlines, EventKind, PluginState
from supervm_rt.transports.native.child.cgroups import start_time
from supervm_rt.transports.remote.places import clear_places
from tests.remote.messages import register, registered
from tests.remote.programs import LAUNCHED, program
from tests.remote.support import Served, peer, serving


def leftovers() -> set[Path]:
    return {path for folder in ("/run", "/var/tmp") for path in Path(folder).glob("supervm-*")}


async def tip(node: Served, height: int) -> None:
    with trio.fail_after(20):
        while (at := node.runtime.chains["dev"].tip) is None or at.height < height:
            await trio.sleep(0.005)
            status = node.runtime.plugins[LAUNCHED]
            assert not status.finished or status.failure is None, status.failure


@pytest.mark.parametrize("image", [False, True], ids=["executable", "image"])
def test_it_lives_in_the_sandbox_and_leaves_nothing(tmp_path: Path, image: bool) -> None:
    before = leftovers()

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0, image=image)) as node:
            await tip(node, 10)
            (confined,) = node.seen.of(EventKind.PLUGIN_CONFINED)
            assert "seccomp baseline" in confined.message
            status = await node.runtime.stop(LAUNCHED)
            assert (status.state, status.failure, status.placement) == (PluginState.UNLOADED, None, "child")

    trio.run(main)
    assert leftovers() == before


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
            assert any(path.name.startswith(f"supervm-{os.getpid()}-") for path in leftovers())

    trio.run(main)


@pytest.mark.parametrize(
    ("link", "manifest"), [("supervm.sock", {}), ("storage", {"resources": "{storage: 4MiB}"})], ids=["socket", "storage"]
)
def test_a_link_of_an_image_is_not_where_the_host_mounts(tmp_path: Path, link: str, manifest: dict[str, str]) -> None:
    """bubblewrap would follow it, and has the host's files under /oldroot meanwhile."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as outside:
        Path(outside).chmod(0o777)
        links = {link: f"/oldroot{outside}/made"}

        async def main() -> None:
            async with serving(tmp_path, program(tmp_path / "plugin", 0, image=True, links=links, **manifest)) as node:
                failed = await node.seen.until(EventKind.PLUGIN_FAILED)
                assert f"/{link} is a link" in failed.message

        trio.run(main)
        assert not list(Path(outside).iterdir())


def test_what_it_tries_fails(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 4)) as node:
            await node.seen.until(EventKind.PLUGIN_LOG, "tried all")
            assert not [event.message for event in node.seen.of(EventKind.PLUGIN_LOG) if "escape" in event.message]
            await tip(node, 10)

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


def test_one_that_does_not_stop_is_ended(tmp_path: Path) -> None:
    before = leftovers()

    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 3), deadlines=Deadlines(stop=0.5)) as node:
            await tip(node, 10)
            status = await node.runtime.stop(LAUNCHED)
            assert status.state is PluginState.UNLOADED
            assert "did not end its BlockExchange" in str(status.failure)

    trio.run(main)
    assert leftovers() == before


def test_nobody_else_can_register_in_its_place(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, program(tmp_path / "plugin", 0)) as node:
            await tip(node, 10)
            async with peer(node.path) as raw:
                answer = await raw.call("Register", register(LAUNCHED))
                assert not registered(answer.messages[0])
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
