"""Remote plugins that crash, fall silent or go are supervised as native ones are: ended, restarted, resumed (clauses L2, L5)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervm_rt import Deadlines, EventKind, PluginConfig, PluginState, RestartPolicy, Store, sdk
from supervm_rt.store import digest
from tests.remote.messages import block, field, fields, register
from tests.remote.programs import LAUNCHED, program
from tests.remote.remains import nothing_left
from tests.remote.support import RawPeer, Served, framed, peer, serving
from tests.remote.test_sessions import NAME, height, manifest_folder, settled

AGAIN = pytest.mark.parametrize("policy", [RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS])
GOOD, CRASHES, FALLS_SILENT = 0, 13, 14
BLOCKS = 10
"""Of the program, which sends four in each of its lives."""


def digest_of(store: Path) -> str:
    with Store.open(store, read_only=True) as opened:
        return digest(opened, "dev").hex


def launched(folder: Path, act: int, policy: RestartPolicy, *, heartbeat: str = "30s") -> Served:
    """What a node was that started this program, until it had sent all; and come to its end, where it comes to one."""
    folder.mkdir()

    async def main() -> Served:
        plugin = program(folder / "plugin", act, restart=policy, heartbeat=heartbeat)
        async with serving(folder, plugin, deadlines=Deadlines(stop=0.3)) as node:
            with trio.fail_after(40):
                while (tip := node.runtime.chains["dev"].tip) is None or tip.height < BLOCKS:
                    await trio.sleep(0.005)
                    status = node.runtime.plugins[LAUNCHED]
                    assert not status.finished or status.failure is None, status.failure
                if act != GOOD and policy is RestartPolicy.ON_FAILURE:
                    await settled(node, PluginState.UNLOADED, LAUNCHED)
            return node

    return trio.run(main)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed") / "good"
    launched(folder, GOOD, RestartPolicy.NEVER)
    return digest_of(folder / "store.db")


def lives(node: Served, kind: EventKind) -> list[int | None]:
    return [event.generation for event in node.seen.of(kind)]


@AGAIN
def test_a_program_that_crashes_is_started_again_and_resumes(tmp_path: Path, undisturbed: str, policy: RestartPolicy) -> None:
    with nothing_left():
        node = launched(tmp_path / "node", CRASHES, policy)
    failures = node.seen.of(EventKind.PLUGIN_FAILED)
    # A life may end before the host has told it of all that is durable: it sends four blocks, and resumes behind one at least.
    assert 2 <= len(failures) < BLOCKS
    assert {(event.data["cause"], "it crashed (SIGSEGV)" in event.message) for event in failures} == {("crash", True)}
    assert lives(node, EventKind.PLUGIN_FAILED) == list(range(1, len(failures) + 1))
    assert len(node.seen.of(EventKind.PLUGIN_RESTARTING)) >= len(failures)
    assert digest_of(tmp_path / "node/store.db") == undisturbed


@AGAIN
def test_a_program_that_falls_silent_is_ended_and_started_again(tmp_path: Path, undisturbed: str, policy: RestartPolicy) -> None:
    with nothing_left():
        node = launched(tmp_path / "node", FALLS_SILENT, policy, heartbeat="500ms")
    silent = lives(node, EventKind.PLUGIN_SILENT)
    assert len(silent) >= 2
    assert silent == list(range(1, len(silent) + 1))
    assert "no sign of life" in node.seen.of(EventKind.PLUGIN_FAILED)[0].message
    assert digest_of(tmp_path / "node/store.db") == undisturbed


async def life(node: Served, raw: RawPeer, number: int) -> int:
    """Registers, sends the block of this number, and gives its exchange."""
    answer = fields((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
    assert (answer[2], answer[5]) == ([1], [number])
    assert answer.get(7, [b"0"]) == [str(number - 1).encode()]
    exchange = await raw.begin("BlockExchange")
    await raw.send(exchange, framed(block(number) + field(10, str(number))))
    await height(node, number)
    return exchange


@AGAIN
def test_one_that_dials_in_is_waited_for_again(tmp_path: Path, policy: RestartPolicy) -> None:
    """Silent in its first life, gone in its second, told to leave for what it says in its third."""
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin", heartbeat="1s"), restart=policy)

    async def main() -> None:
        async with serving(tmp_path, plugin, deadlines=Deadlines(stop=0.3)) as node:
            async with peer(node.path) as raw:
                await life(node, raw, 1)
                await node.seen.until(EventKind.PLUGIN_SILENT)
                await raw.until_closed()
            async with peer(node.path) as raw:
                await life(node, raw, 2)
            await node.seen.until(EventKind.PLUGIN_FAILED, "connection was lost")
            async with peer(node.path) as raw:
                await raw.send(await life(node, raw, 3), framed(b"\xff"))
                await node.seen.until(EventKind.PLUGIN_FAILED, "broke its BlockExchange")
            async with peer(node.path) as raw:
                exchange = await life(node, raw, 4)
                assert node.runtime.plugins[NAME].state is PluginState.RUNNING
                # It ends well: by one policy that is its end until it comes again, by the other it is waited for.
                await raw.send(exchange, b"", end=True)
                assert (await raw.finished(exchange)).status == 0
                await settled(node, PluginState.LOADING if policy is RestartPolicy.ALWAYS else PluginState.UNLOADED)
                assert node.runtime.plugins[NAME].finished == (policy is RestartPolicy.ON_FAILURE)
                await life(node, raw, 5)
            assert lives(node, EventKind.PLUGIN_SILENT) == [1]
            assert lives(node, EventKind.PLUGIN_FAILED)[:3] == [1, 2, 3]

    trio.run(main)


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03, 0.06, 0.1, 0.3])
@pytest.mark.parametrize("way", ["dials in", "executable", "image"])
def test_cancelling_at_any_moment_leaves_nothing_behind(tmp_path: Path, way: str, delay: float) -> None:
    """While a program is unpacked, started, registered, heard; or while one that dials in is."""
    plugin = None if way == "dials in" else program(tmp_path / "plugin", CRASHES, image=way == "image", restart="always")

    async def dial_in(path: Path) -> None:
        async with sdk.connect(f"unix:{path}", name=NAME, version="1.0.0", chain="dev") as host:
            for number in range(1, 1_000_000):
                own, last = number.to_bytes(32), (number - 1).to_bytes(32)
                await host.publish(bytes(1_000), height=number, hash=own, parent=last, position=own)

    async def main() -> None:
        with trio.move_on_after(delay):
            async with serving(tmp_path, *((plugin,) if plugin else ()), ring_bytes=1 << 16) as node:
                if plugin is None:
                    await dial_in(node.path)
                await trio.sleep_forever()

    with nothing_left():
        trio.run(main)
    with Store.open(tmp_path / "store.db") as store:
        events = store.events(limit=1_000_000)
    assert [event.block.height for event in events] == list(range(1, len(events) + 1))
