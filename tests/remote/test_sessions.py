"""Registration, the session that it gives, and the life that follows (clauses L1, L2, L5, R1, R3, R4)."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from supervm_rt import (
    Deadlines,
    EventKind,
    Manifest,
    PluginConfig,
    PluginState,
    PolicyLevel,
    RestartLimits,
    RestartPolicy,
    Runtime,
    sdk,
)
from supervm_rt.runtime import runtime
from supervm_rt.runtime.binary import read_manifest
from supervm_rt.transports.interface import Received
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.transports.remote.server import RemoteServer
from supervm_rt.transports.remote.sessions import Sessions
from supervm_rt.transports.remote.transport import RemoteTransport
from supervm_rt.trust.manifest import parse_manifest
from tests.remote.messages import block, field, fields, register, registered
from tests.remote.support import Answer, RawPeer, Served, framed, peer, serving, short_folder

NAME = "org.example.plugin"


def manifest_folder(folder: Path, **changes: str) -> Path:
    """What an operator has of a plugin that dials in."""
    folder.mkdir()
    said = {
        "id": NAME,
        "name": "Example",
        "version": '"1.0.0"',
        "chain": "dev",
        "capabilities": "[block_stream]",
        "runMode": "grpc",
    } | changes
    (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    return folder


def sockets(folder: Path) -> list[Path]:
    return list(folder.glob("*/socket"))


def test_a_plugin_that_comes_before_the_node_has_opened_is_the_configured_one(tmp_path: Path) -> None:
    """As one does that was connected to the node's last life, which was killed."""
    first = manifest_folder(tmp_path / "first", id="org.example.first", name="First")
    second = manifest_folder(tmp_path / "second")
    come = threading.Event()

    def read_when_it_has_come(path: Path) -> Manifest:
        if path == second:
            assert come.wait(20)
        return read_manifest(path)

    async def come_at_once(folder: Path, answers: list[Answer]) -> None:
        while not (found := sockets(folder)):
            await trio.sleep(0.001)
        async with peer(found[0]) as raw:
            answers.append(await raw.call("Register", register(NAME)))
            await trio.sleep_forever()

    def note(self: Sessions, *arguments: Any) -> Any:
        come.set()
        return real(self, *arguments)

    async def main() -> None:
        answers: list[Answer] = []
        with short_folder() as short, mock.patch("tempfile.tempdir", str(short)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_at_once, short, answers)
                plugins = (PluginConfig(path=first), PluginConfig(path=second))
                async with serving(tmp_path, *plugins) as node:
                    with trio.fail_after(20):
                        while not answers:
                            await trio.sleep(0.001)
                    assert registered(answers[0].messages[0]), answers
                    assert set(node.runtime.plugins) == {"org.example.first", NAME}
                nursery.cancel_scope.cancel()

    real = Sessions.register
    with mock.patch.object(runtime, "read_manifest", read_when_it_has_come), mock.patch.object(Sessions, "register", note):
        trio.run(main)


async def settled(node: Served, state: PluginState, plugin: str = NAME) -> None:
    with trio.fail_after(20):
        while plugin not in node.runtime.plugins or node.runtime.plugins[plugin].state is not state:
            await trio.sleep(0.002)


async def height(node: Served, wanted: int) -> None:
    with trio.fail_after(20):
        while (tip := node.runtime.chains["dev"].tip) is None or tip.height != wanted:
            await trio.sleep(0.002)


def token_of(response: bytes) -> tuple[tuple[str, str], ...]:
    (token,) = fields(response)[4]
    assert isinstance(token, bytes)
    return (("supervm-session", token.decode()),)


# ---- registration ----------------------------------------------------------------------------------------------------------


def test_the_answer_says_all_that_a_plugin_needs(tmp_path: Path) -> None:
    folder = manifest_folder(tmp_path / "plugin", heartbeat="7s", resources="{cpu: 500m, memory: 64MiB}")
    plugin = PluginConfig(path=folder, name="mine", settings={"depth": 3})

    async def main() -> None:
        limits = RemoteLimits(message=1 << 20)
        async with serving(tmp_path, plugin, limits=limits, ring_bytes=1 << 18) as node, peer(node.path) as raw:
            said = fields((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
            assert said[1] == [b"mine"]
            assert said[2] == [1]
            assert said[5] == [1]
            (configuration,) = said[6]
            assert isinstance(configuration, bytes)
            assert json.loads(configuration) == {"depth": 3}
            assert 7 not in said
            assert said[8] == [1 << 18]
            assert said[9] == [7_000]
            assert said[10] == [b"block_stream"]
            (resources,) = said[11]
            assert isinstance(resources, bytes)
            assert fields(resources) == {1: [500], 2: [64 << 20]}
            assert said[12] == [1 << 20]
            assert said[13] == [1]

    trio.run(main)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (register(NAME, version="2.0.0"), "version"),
        (register(NAME, chain="bitcoin"), "chain"),
        (register(NAME, capabilities=("block_stream", "submit_tx")), "capabilities"),
        (register("org.example.stranger", chain="nowhere"), "nowhere"),
        (register("", chain="dev"), "name is ''"),
        (register("org.example.stranger", capabilities=("fly",)), "fly"),
        (register(NAME) + field(5, "[]"), "manifest_json"),
        (register(NAME) + field(5, '{"id": "org.example.other"}'), "manifest_json"),
    ],
)
def test_who_is_not_let_in_is_told_why(tmp_path: Path, request_: bytes, said: str) -> None:
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin"))

    async def main() -> None:
        async with serving(tmp_path, plugin) as node, peer(node.path) as raw:
            answer = await raw.call("Register", request_)
            assert answer.status == 0
            assert not registered(answer.messages[0])
            (why,) = fields(answer.messages[0])[3]
            assert isinstance(why, bytes)
            assert said in why.decode()
            await node.seen.until(EventKind.REMOTE_REFUSED, said)
            assert set(node.runtime.plugins) == {NAME}
            assert node.runtime.plugins[NAME].state is PluginState.LOADING
            # The one that is meant still comes in.
            assert registered((await raw.call("Register", register(NAME))).messages[0])

    trio.run(main)


def test_a_policy_that_wants_proof_lets_nobody_in(tmp_path: Path) -> None:
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin"))

    async def main() -> None:
        async with serving(tmp_path, plugin, policy=PolicyLevel.STRICT) as node, peer(node.path) as raw:
            for name in (NAME, "org.example.stranger"):
                answer = await raw.call("Register", register(name))
                assert not registered(answer.messages[0])
                assert b"strict" in answer.messages[0]

    trio.run(main)


def test_a_manifest_comes_along(tmp_path: Path) -> None:
    said = {
        "id": "org.example.sent",
        "name": "Sent",
        "version": "1.2.3",
        "chain": "dev",
        "capabilities": ["block_stream"],
        "runMode": "grpc",
    }

    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            request = register("Sent", version="1.2.3") + field(5, json.dumps(said))
            assert registered((await raw.call("Register", request)).messages[0])
            status = node.runtime.plugins["org.example.sent"]
            assert (status.name, status.version, status.placement) == ("Sent", "1.2.3", "remote")

    trio.run(main)


# ---- the session -----------------------------------------------------------------------------------------------------------


def test_a_token_is_good_on_other_connections_of_the_same_peer(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as first, peer(node.path) as second:
            response = (await first.call("Register", register(NAME) + field(6, 1))).messages[0]
            exchange = await second.begin("BlockExchange", more=token_of(response))
            await second.send(exchange, framed(block(1)))
            await height(node, 1)
            # The connection of Register may go: the exchange is elsewhere.
            await first.stream.aclose()
            await second.send(exchange, framed(block(2)))
            await height(node, 2)
            assert node.runtime.plugins[NAME].state is PluginState.RUNNING

    trio.run(main)


def test_a_token_ends_with_its_life(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            response = (await raw.call("Register", register(NAME))).messages[0]
            exchange = await raw.begin("BlockExchange", more=token_of(response))
            await raw.send(exchange, b"", end=True)
            assert (await raw.finished(exchange)).status == 0
            await settled(node, PluginState.UNLOADED)
            assert (await raw.call("BlockExchange", b"", token_of(response))).status == 16
            again = (await raw.call("Register", register(NAME))).messages[0]
            assert token_of(again) != token_of(response)
            assert fields(again)[5] == [2]

    trio.run(main)


def test_a_position_is_acknowledged_once_it_is_durable_and_not_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
            exchange = await raw.begin("BlockExchange")
            async with node.runtime.store_turn:  # nothing is committed meanwhile
                await raw.send(exchange, framed(block(1) + field(10, b"one")))
                with trio.fail_after(20):
                    while (ring := node.runtime.plugins[NAME].ring) is None or not ring.frames or ring.used:
                        await trio.sleep(0.002)
                for _ in range(10):  # what was said before comes before these answers
                    assert (await raw.call("Health", b"")).status == 0
                assert not any(30 in fields(said) for said in raw.answers[exchange].messages)
            with trio.fail_after(20):
                while not any(fields(said).get(30) == [field(1, b"one")] for said in raw.answers[exchange].messages):
                    await raw.hear()

    trio.run(main)


def test_several_plugins_on_one_connection_say_which(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            tokens = [
                token_of((await raw.call("Register", register(f"org.example.{name}"))).messages[0]) for name in ("one", "two")
            ]
            assert (await raw.call("Heartbeat", b"")).status == 9
            for token in tokens:
                beat = await raw.call("Heartbeat", b"", token)
                assert fields(beat.messages[0]) == {1: [30_000]}

    trio.run(main)


def test_a_plugin_that_comes_again_takes_the_place_of_its_last_life(tmp_path: Path) -> None:
    """The host may not know yet that the connection of the last one is dead."""
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin"), restart=RestartPolicy.ON_FAILURE)

    async def main() -> None:
        async with serving(tmp_path, plugin) as node, peer(node.path) as first, peer(node.path) as second:
            assert registered((await first.call("Register", register(NAME))).messages[0])
            exchange = await first.begin("BlockExchange")
            await first.send(exchange, framed(block(1) + field(10, b"one")))
            await height(node, 1)
            answer = fields((await second.call("Register", register(NAME))).messages[0])
            assert (answer[2], answer[5], answer[7]) == ([1], [2], [b"one"])
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert failed.data["cause"] == "superseded"

    trio.run(main)


def test_one_that_waits_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the next life to begin, and not for a clock."""
    read: list[bytes] = []

    def parse(data: bytes, *, source: str) -> Manifest:
        read.append(data)
        return parse_manifest(data, source=source)

    monkeypatch.setattr("supervm_rt.runtime.remote.parse_manifest", parse)
    folder = manifest_folder(tmp_path / "plugin")
    said = {
        "id": NAME,
        "name": "Example",
        "version": "1.0.0",
        "chain": "dev",
        "capabilities": ["block_stream"],
        "runMode": "grpc",
    }
    request = register("Example") + field(5, json.dumps(said))
    limits = RestartLimits(first_delay=1.5, longest_delay=1.5, failures=100, window=60)

    async def main() -> None:
        plugin = PluginConfig(path=folder, restart=RestartPolicy.ON_FAILURE)
        async with serving(tmp_path, plugin, restarts=limits) as node:
            async with peer(node.path) as first:
                assert registered((await first.call("Register", request)).messages[0])
            await node.seen.until(EventKind.PLUGIN_RESTARTING)
            read.clear()
            async with peer(node.path) as second:
                assert registered((await second.call("Register", request)).messages[0])
            assert len(read) == 1

    trio.run(main)


def test_transactions_have_no_route(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            transaction = field(1, "dev") + field(2, b"tx")
            free = fields((await raw.call("SubmitTx", transaction)).messages[0])
            assert 1 not in free
            assert free[3] == [b"no route: this node has no way for transactions of this chain"]
            assert registered((await raw.call("Register", register(NAME))).messages[0])
            assert (await raw.call("SubmitTx", transaction)).status == 7
            both = register("org.example.wallet", capabilities=("submit_tx",)) + field(6, 1)
            token = token_of((await raw.call("Register", both)).messages[0])
            assert (await raw.call("SubmitTx", transaction, token)).status == 0
            exchange = await raw.begin("BlockExchange", more=token)
            await raw.send(exchange, framed(field(27, transaction + field(3, 5))))
            (said,) = (await raw.said(exchange)).messages
            (result,) = fields(said)[28]
            assert isinstance(result, bytes)
            assert fields(result)[4] == [5]

    trio.run(main)


# ---- its life --------------------------------------------------------------------------------------------------------------


def test_a_plugin_that_opens_no_exchange(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, deadlines=Deadlines(start=0.3)) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME))).messages[0])
            await node.seen.until(EventKind.PLUGIN_FAILED, "opened no BlockExchange")

    trio.run(main)


def test_a_plugin_whose_connection_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node:
            async with peer(node.path) as raw:
                assert registered((await raw.call("Register", register(NAME))).messages[0])
                await raw.begin("BlockExchange")
                await settled(node, PluginState.RUNNING)
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert failed.data["cause"] == "disconnect"
            await settled(node, PluginState.UNLOADED)

    trio.run(main)


def test_a_registered_plugin_whose_connection_ends_before_its_exchange(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, deadlines=Deadlines(start=1_000)) as node:
            async with peer(node.path) as raw:
                assert registered((await raw.call("Register", register(NAME))).messages[0])
                await settled(node, PluginState.STARTING)
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert failed.data["cause"] == "disconnect"

    trio.run(main)


def test_what_is_said_belongs_to_the_life_that_says_it(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    take = RemoteTransport.receive_rest

    def note(transport: RemoteTransport) -> Received:
        received = take(transport)
        heard.extend((transport.generation, frame.generation) for frame in received.frames)
        return received

    async def main() -> None:
        async with serving(tmp_path) as node:
            for life in (1, 2):
                async with peer(node.path) as raw:
                    assert registered((await raw.call("Register", register(NAME))).messages[0])
                    exchange = await raw.begin("BlockExchange")
                    await raw.send(exchange, framed(block(life)))
                    await height(node, life)
                await settled(node, PluginState.UNLOADED)

    with mock.patch.object(RemoteTransport, "receive_rest", note):
        trio.run(main)
    assert heard == [(1, 1), (2, 2)]


def test_a_silent_plugin_is_ended(tmp_path: Path) -> None:
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin", heartbeat="300ms", restart="never"))

    async def main() -> None:
        async with serving(tmp_path, plugin) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME))).messages[0])
            await raw.begin("BlockExchange")
            await node.seen.until(EventKind.PLUGIN_SILENT)
            await settled(node, PluginState.UNLOADED)

    trio.run(main)


def test_a_beating_plugin_lives_on(tmp_path: Path) -> None:
    plugin = PluginConfig(path=manifest_folder(tmp_path / "plugin", heartbeat="1s", restart="never"))

    async def main() -> None:
        async with serving(tmp_path, plugin) as node:
            async with sdk.connect(f"unix:{node.path}", name=NAME, version="1.0.0", chain="dev"):
                await trio.sleep(2.5)
                assert node.runtime.plugins[NAME].state is PluginState.RUNNING
            assert not node.seen.of(EventKind.PLUGIN_SILENT)

    trio.run(main)


def test_stop_is_told_and_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
            exchange = await raw.begin("BlockExchange")
            await settled(node, PluginState.RUNNING)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.runtime.stop, NAME)
                (said,) = (await raw.said(exchange)).messages
                assert 32 in fields(said)
                # What it still has to say counts.
                await raw.send(exchange, framed(block(1)), end=True)
                assert (await raw.finished(exchange)).status == 0
            assert node.runtime.plugins[NAME].failure is None
            await height(node, 1)

    trio.run(main)


def test_a_plugin_can_ask_to_be_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node:
            for reason in (0, 7):
                async with sdk.connect(f"unix:{node.path}", name=NAME, version="1.0.0", chain="dev") as host:
                    host.request_shutdown(reason)
                    with trio.fail_after(20):
                        await host.wait_stopped()
                await settled(node, PluginState.UNLOADED)
                assert ("reason 7" in str(node.runtime.plugins[NAME].failure)) == (reason == 7)

    trio.run(main)


def test_a_wrong_message_ends_the_life_and_what_came_before_counts(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME))).messages[0])
            exchange = await raw.begin("BlockExchange")
            await raw.send(exchange, framed(block(1)) + framed(b"\xff"))
            answer = await raw.finished(exchange)
            assert answer.status == 3
            failed = await node.seen.until(EventKind.PLUGIN_FAILED)
            assert failed.data["cause"] == "protocol"
            await height(node, 1)

    trio.run(main)


def test_logs_and_metrics_arrive(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path) as node,
            sdk.connect(f"unix:{node.path}", name=NAME, version="1.0.0", chain="dev") as host,
        ):
            host.log(3, "a line\nwith a break")
            host.metric("peers", 8.5)
            line = await node.seen.until(EventKind.PLUGIN_LOG)
            assert (line.message, int(line.severity)) == ("a line\\nwith a break", 3)
            metric = await node.seen.until(EventKind.PLUGIN_METRIC)
            assert metric.data == {"name": "peers", "value": 8.5}

    trio.run(main)


def test_who_leaves_while_it_registers_leaves_no_plugin_behind(tmp_path: Path) -> None:
    """Under the policy dev a registration adds a plugin, which nobody would ever be again."""

    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as other:
            for turns in range(40):
                async with peer(node.path) as raw:
                    call = await raw.begin("Register")
                    await raw.send(call, framed(register(f"org.example.gone-{turns}")), end=True)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    if turns % 2:
                        raw.http.reset_stream(call)
                        await raw.flush()
                        assert (await raw.call("Health", b"")).status == 0
            with trio.fail_after(20):
                while not all(status.finished for status in node.runtime.plugins.values()):
                    await trio.sleep(0.01)
            # Who comes again is let in.
            answer = await other.call("Register", register("org.example.gone-5"))
            assert registered(answer.messages[0]), answer

    trio.run(main)


def test_the_end_of_the_node_ends_all(tmp_path: Path) -> None:
    """With a plugin in each state: registering, without an exchange, running."""

    async def main() -> None:
        peers: list[RawPeer] = []
        async with serving(tmp_path, deadlines=Deadlines(stop=0.3)) as node:
            peers += [RawPeer(await trio.open_unix_socket(str(node.path))) for _ in range(3)]
            one, two, three = peers
            assert registered((await two.call("Register", register("org.example.two") + field(6, 1))).messages[0])
            assert registered((await three.call("Register", register("org.example.three"))).messages[0])
            await two.begin("BlockExchange")
            await one.begin("Register")
            await settled(node, PluginState.RUNNING, "org.example.two")
        assert all(status.finished for status in node.runtime.plugins.values())
        for each in peers:
            await each.until_closed()
            await each.stream.aclose()

    trio.run(main)


def test_a_node_that_is_being_ended_refuses_nobody_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        folder = manifest_folder(tmp_path / "plugin")
        async with serving(tmp_path, PluginConfig(path=folder)) as node, peer(node.path) as raw:
            node.runtime.close()
            answer = await raw.call("Register", register("org.example.newcomer"))
            assert (answer.status, answer.messages) == (14, [])
            with pytest.raises(sdk.Disconnected, match="being ended"):
                async with sdk.connect(f"unix:{node.path}", name="org.example.newcomer", version="1.0.0", chain="dev"):
                    pass
            assert node.seen.refusals() == []

    trio.run(main)


def test_a_node_that_is_cancelled_while_it_begins_to_listen_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server is shielded from what cancels the node, and is ended by the node: once it has begun."""
    remote, bind = Runtime.remote, RemoteServer._bind
    begun: list[Runtime] = []
    scope = trio.CancelScope()
    hung = False

    async def note(self: Runtime) -> RemoteServer:
        begun.append(self)
        return await remote(self)

    def cancel(self: RemoteServer, *arguments: Any) -> Any:
        scope.cancel()
        return bind(self, *arguments)

    async def look() -> None:
        nonlocal hung
        await trio.sleep(20)
        hung = True
        begun[0].end_serving()

    async def main() -> None:
        trio.lowlevel.spawn_system_task(look)
        with scope:
            async with serving(tmp_path):
                await trio.sleep_forever()

    monkeypatch.setattr(Runtime, "remote", note)
    monkeypatch.setattr(RemoteServer, "_bind", cancel)
    trio.run(main)
    assert begun
    assert scope.cancelled_caught
    assert not hung


def test_connections_that_the_end_of_the_node_meets_on_their_way_in_are_closed(tmp_path: Path) -> None:
    """The collector would close them some day, and warn."""

    async def main(folder: Path, turns: int, peers: list[socket.socket]) -> None:
        async with serving(folder) as node:
            for each in peers:
                each.connect(str(node.path))  # the backlog has room, so nothing waits
            for _ in range(turns):
                await trio.lowlevel.checkpoint()

    for turns in [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]:
        peers = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            trio.run(main, tmp_path, turns, peers)
            gc.collect()
        for each in peers:
            each.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while each.recv(1 << 16):
                    pass
            each.close()
        assert [str(one.message) for one in said if one.category is ResourceWarning] == []
