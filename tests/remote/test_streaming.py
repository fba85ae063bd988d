"""Subscribers over gRPC get what the feed has, from where they ask (clauses R2, L3, X2)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from supervm_rt import PluginConfig, Store, sdk
from supervm_rt.chain.cursor import MAX_CHAINS
from tests.remote.messages import field, fields, register, registered
from tests.remote.support import Answer, RawPeer, Served, framed, peer, serving
from tests.store.support import dev_mirror

NEW, UNDO, FINAL = 0, 1, 2
ALL = b"".join(field(7, step) for step in (NEW, UNDO, FINAL))
ONCE = field(10, 1)


def block_id(name: str) -> bytes:
    return name.encode().ljust(32, b".")


async def publish(host: sdk.Plugin, *names: str) -> None:
    """Blocks named by their way from the root: "", "a", "ab" is a child of "a"."""
    for name in names:
        await host.publish(
            name.encode(),
            height=len(name) + 1,
            hash=block_id(name),
            parent=block_id(name[:-1] if name else "root"),
            position=name.encode() or b"-",
        )


@asynccontextmanager
async def told(
    folder: Path, *names: str, plugins: tuple[PluginConfig, ...] = ()
) -> AsyncGenerator[tuple[Served, sdk.Plugin, RawPeer], None]:
    async with serving(folder, *plugins) as node:
        connect = sdk.connect(f"unix:{node.path}", name="org.example.source", version="1.0.0", chain="dev")
        async with connect as host, peer(node.path) as raw:
            await publish(host, *names)
            if names:
                with trio.fail_after(20):
                    await host.wait_durable(names[-1].encode() or b"-")
            yield node, host, raw


def events(answer: Answer) -> list[tuple[int, int, str]]:
    """(step, height, name) of each."""
    out = []
    for message in answer.messages:
        batch = fields(message).get(23)
        for each in fields(batch[0])[1] if batch and isinstance(batch[0], bytes) else [message]:
            assert isinstance(each, bytes)
            said = fields(each)
            (hash_,) = said[6]
            assert isinstance(hash_, bytes)
            out.append((int(said.get(8, [0])[0]), int(said.get(2, [0])[0]), hash_.rstrip(b".").decode()))
    return out


def test_a_v0_client_gets_all_chains_from_a_time_on(tmp_path: Path) -> None:
    """It sends a Timestamp, knows no cursor and understands new blocks alone."""

    async def main() -> None:
        async with told(tmp_path, "", "a", "ab", "ac", "acd") as (_, host, raw):
            stream = await raw.begin("StreamBlocks")
            await raw.send(stream, framed(b""), end=True)
            answer = await raw.said(stream, 5)
            assert events(answer) == [(NEW, 1, ""), (NEW, 2, "a"), (NEW, 3, "ab"), (NEW, 3, "ac"), (NEW, 4, "acd")]
            first = fields(answer.messages[1])
            assert (first[1], first[3]) == ([b"dev"], [b"a"])
            await publish(host, "acde")
            assert events(await raw.said(stream, 6))[-1] == (NEW, 5, "acde")
            later = await raw.begin("StreamBlocks")
            await raw.send(later, framed(field(1, 4_000_000_000) + field(10, 1)), end=True)
            assert events(await raw.finished(later)) == []

    trio.run(main)


def named(folder: Path, chain: str) -> PluginConfig:
    """A plugin that dials in, with a chain's name of its own."""
    (folder / chain).mkdir()
    (folder / chain / "plugin.yaml").write_text(
        f"{{id: org.example.{chain}, name: {chain}, version: 1.0.0, chain: dev, capabilities: [block_stream], runMode: grpc}}"
    )
    return PluginConfig(path=folder / chain, chain=chain)


async def mirror(node: Served, chain: str, *names: str) -> None:
    """Lets the plugin of a chain publish blocks, and waits until they are durable."""
    async with sdk.connect(f"unix:{node.path}", name=f"org.example.{chain}", version="1.0.0", chain="dev") as host:
        await publish(host, *names)
        with trio.fail_after(20):
            await host.wait_durable(names[-1].encode() or b"-")


def of_chains(answer: Answer) -> list[tuple[str, str]]:
    """(chain, name) of each event."""
    chains = [fields(message)[1][0] for message in answer.messages]
    return [(bytes(chain).decode(), name) for chain, (_, _, name) in zip(chains, events(answer), strict=True)]


ALL_CHAINS = [("earlier", ""), ("earlier", "a"), ("one", ""), ("two", ""), ("two", "b")]


@pytest.mark.parametrize("fed", [("one", "two"), ("one",), ()], ids=["two fed", "one fed", "none fed"])
def test_all_chains_are_those_of_the_store(tmp_path: Path, fed: tuple[str, ...]) -> None:
    """Also such as an earlier run has mirrored, and no plugin feeds now."""

    async def main() -> None:
        plugins = {chain: named(tmp_path, chain) for chain in ("earlier", "one", "two")}
        async with serving(tmp_path, plugins["earlier"]) as node:
            await mirror(node, "earlier", "", "a")
        async with serving(tmp_path, plugins["one"], plugins["two"]) as node:
            await mirror(node, "one", "")
            await mirror(node, "two", "", "b")
        async with serving(tmp_path, *(plugins[chain] for chain in fed)) as node, peer(node.path) as raw:
            stream = await raw.begin("StreamBlocks")
            await raw.send(stream, framed(field(1, -5)), end=True)  # a Timestamp alone, as a v0 client sends it
            assert of_chains(await raw.said(stream, 5)) == ALL_CHAINS
            assert of_chains(await raw.call("StreamBlocks", ONCE)) == ALL_CHAINS
            if "two" in fed:
                await mirror(node, "two", "bc")
                assert of_chains(await raw.said(stream, 6))[-1] == ("two", "bc")
            assert of_chains(await raw.call("StreamBlocks", ONCE + field(8, 1) + field(3, "earlier"))) == ALL_CHAINS[:2]

    trio.run(main)


def test_a_cursor_of_all_chains_goes_on_where_another_chain_has_come(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = named(tmp_path, "one"), named(tmp_path, "two")
        async with serving(tmp_path, first) as node, peer(node.path) as raw:
            await mirror(node, "one", "", "a")
            (cursor,) = fields((await raw.call("StreamBlocks", ONCE)).messages[0])[9]
            assert isinstance(cursor, bytes)
        async with serving(tmp_path, first, second) as node, peer(node.path) as raw:
            await mirror(node, "two", "")
            await mirror(node, "one", "ab")
            answer = await raw.call("StreamBlocks", ONCE + field(4, cursor))
            assert answer.status == 0, answer.message
            assert of_chains(answer) == [("one", "a"), ("one", "ab")]

    trio.run(main)


def test_what_there_is_of_no_chain_and_of_too_many(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            answer = await raw.call("StreamBlocks", b"")
            assert (answer.status, answer.message) == (5, "no chain is mirrored here yet")
        with Store.open(tmp_path / "store.db") as store:
            for number in range(MAX_CHAINS + 1):
                dev_mirror(store, name=f"chain-{number:02}")
        async with serving(tmp_path) as node, peer(node.path) as raw:
            answer = await raw.call("StreamBlocks", b"")
            assert answer.status == 9
            assert answer.message == "this node has 65 chains, and a stream is of 64 at most: name those that are wanted"
            some = b"".join(field(3, f"chain-{number:02}") for number in range(1, MAX_CHAINS + 1))
            assert (await raw.call("StreamBlocks", ONCE + some)).status == 0

    trio.run(main)


def test_a_cursor_goes_on_behind_its_event_also_over_a_reorg(tmp_path: Path) -> None:
    async def main() -> None:
        async with told(tmp_path, "", "a", "ab") as (_, host, raw):
            answer = await raw.call("StreamBlocks", ALL + ONCE)
            assert answer.status == 0
            assert [name for _, _, name in events(answer)] == ["", "a", "ab"]
            (cursor,) = fields(answer.messages[-1])[9]
            await publish(host, "c", "cd")
            with trio.fail_after(20):
                await host.wait_durable(b"cd")
            assert isinstance(cursor, bytes)
            rest = await raw.call("StreamBlocks", ALL + ONCE + field(4, cursor))
            assert events(rest) == [(UNDO, 3, "ab"), (UNDO, 2, "a"), (NEW, 2, "c"), (NEW, 3, "cd")]
            forged = await raw.call("StreamBlocks", ONCE + field(4, cursor[:-2] + b"xx"))
            assert forged.status == 11

    trio.run(main)


def test_a_cursor_is_of_the_chains_that_it_was_given_for(tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin/plugin.yaml").write_text(
        "{id: org.example.other, name: Other, version: 1.0.0, chain: dev, capabilities: [block_stream], runMode: grpc}"
    )
    other = PluginConfig(path=tmp_path / "plugin", chain="other")

    async def main() -> None:
        async with told(tmp_path, "", "a", plugins=(other,)) as (node, _, raw):
            connect = sdk.connect(f"unix:{node.path}", name="org.example.other", version="1.0.0", chain="dev")
            async with connect as second:
                await publish(second, "", "b")
                with trio.fail_after(20):
                    await second.wait_durable(b"b")
                cursors = {}
                for chain in ("dev", "other"):
                    answer = await raw.call("StreamBlocks", ONCE + field(3, chain))
                    assert answer.status == 0, answer
                    (cursors[chain],) = fields(answer.messages[0])[9]
                assert isinstance(cursors["dev"], bytes)
                assert events(await raw.call("StreamBlocks", ONCE + field(3, "dev") + field(4, cursors["dev"]))) == [
                    (NEW, 2, "a")
                ]
                strange = await raw.call("StreamBlocks", ONCE + field(3, "other") + field(4, cursors["dev"]))
                assert (strange.status, strange.messages) == (11, [])
                assert "the cursor is of dev, not of other" in strange.message

    trio.run(main)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (field(8, 3), ["ab", "abc"]),
        (field(3, "dev") + field(8, 4), ["abc"]),
        (field(9, 1), []),
        (field(7, UNDO), []),
        (field(11, 100), ["", "a", "ab", "abc"]),
    ],
)
def test_where_a_stream_begins(tmp_path: Path, request_: bytes, expected: list[str]) -> None:
    async def main() -> None:
        async with told(tmp_path, "", "a", "ab", "abc") as (_, _host, raw):
            answer = await raw.call("StreamBlocks", request_ + ONCE)
            assert answer.status == 0, answer
            assert [name for _, _, name in events(answer)] == expected

    trio.run(main)


@pytest.mark.parametrize(
    ("request_", "status"),
    [(field(3, "nowhere"), 5), (field(11, 10_000), 3), (field(7, 9), 3), (field(2, 2_000_000_000), 3), (field(6, 3), 3)],
)
def test_what_cannot_be_asked_for(tmp_path: Path, request_: bytes, status: int) -> None:
    async def main() -> None:
        async with told(tmp_path, "") as (_, _host, raw):
            answer = await raw.call("StreamBlocks", request_ + ONCE)
            assert answer.status == status, answer
            assert answer.message

    trio.run(main)


def test_blocks_can_be_left_out_and_the_ir_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with told(tmp_path, "", "a") as (_, _host, raw):
            answer = await raw.call("StreamBlocks", ONCE + field(5, 1) + field(6, 1))
            said = fields(answer.messages[1])
            assert 3 not in said
            (ir,) = said[4]
            assert isinstance(ir, bytes)
            assert json.loads(ir)["blockHash"] == block_id("a").hex()

    trio.run(main)


def test_a_reader_that_is_stuck_holds_nobody_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with told(tmp_path, "") as (node, host, raw):
            stuck = await raw.begin("StreamBlocks")
            await raw.send(stuck, framed(b""), end=True)
            async with peer(node.path) as other:
                reading = await other.begin("StreamBlocks")
                await other.send(reading, framed(b""), end=True)
                for step in range(200):
                    await host.publish(
                        bytes(100_000),
                        height=step + 2,
                        hash=step.to_bytes(32, "big"),
                        parent=(step - 1).to_bytes(32, "big") if step else block_id(""),
                    )
                assert len((await other.said(reading, 201)).messages) == 201
                assert not raw.answers[stuck].messages

    trio.run(main)


def test_the_standard_services(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.one"))).messages[0])
            for service, serves in (("", 1), ("supervm.plugin.PluginHost", 1)):
                answer = await raw.call("/grpc.health.v1.Health/Check", HealthCheckRequest(service=service).SerializeToString())
                assert HealthCheckResponse.FromString(answer.messages[0]).status == serves
            assert (
                await raw.call("/grpc.health.v1.Health/Check", HealthCheckRequest(service="x").SerializeToString())
            ).status == 5
            health = fields((await raw.call("Health", b"")).messages[0])
            assert health[1] == [1]
            for version in ("v1", "v1alpha"):
                route = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
                asked = ServerReflectionRequest(list_services="").SerializeToString()
                listed = ServerReflectionResponse.FromString((await raw.call(route, asked)).messages[0])
                names = {each.name for each in listed.list_services_response.service}
                assert names == {"supervm.plugin.PluginHost", "grpc.health.v1.Health"}
                asked = ServerReflectionRequest(file_containing_symbol="supervm.plugin.PluginHost").SerializeToString()
                found = ServerReflectionResponse.FromString((await raw.call(route, asked)).messages[0])
                (data,) = found.file_descriptor_response.file_descriptor_proto
                assert {method.name for method in FileDescriptorProto.FromString(data).service[0].method} >= {
                    "Register",
                    "Heartbeat",
                }

    trio.run(main)
