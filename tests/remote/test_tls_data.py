"""What goes over mutual TLS is what goes over a Unix socket (clauses T3, R2, R4, G2)."""

from __future__ import annotations

import gc
import hashlib
import warnings
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from supervm_rt import EventKind, PluginState, Store, sdk
from supervm_rt.store import digest
from supervm_rt.transports.remote.addresses import UnixAddress
from tests.remote.certificates import Authority
from tests.remote.messages import field, fields
from tests.remote.support import Served, framed, serving, short_folder
from tests.remote.test_tls import connect

NAME = "org.example.large"
BLOCKS, BLOCK_BYTES = 200, 200_000


def raw_block(height: int) -> bytes:
    return Random(height).randbytes(BLOCK_BYTES)


async def publish(host: sdk.Plugin) -> None:
    for height in range(1, BLOCKS + 1):
        own, last = height.to_bytes(32), (height - 1).to_bytes(32)
        await host.publish(raw_block(height), height=height, hash=own, parent=last, position=own)
    with trio.fail_after(60):
        await host.wait_durable(BLOCKS.to_bytes(32))


def digest_of(store: Path) -> str:
    with Store.open(store, read_only=True) as opened:
        return digest(opened, "dev").hex


def test_large_blocks_go_both_ways_beside_a_reader_that_is_stuck(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "tls")
    read: list[str] = []

    async def over_tls(folder: Path) -> None:
        async with serving(folder, listen=(authority.address(),), ring_bytes=1 << 20) as node:
            (address,) = node.runtime.listening
            plugin = sdk.connect(address, name=NAME, version="1.0.0", chain="dev", ssl=authority.client())
            async with (
                plugin as host,
                connect(node, authority.client("stuck.example")) as stuck,
                connect(node, authority.client("reader.example")) as reader,
            ):
                await stuck.send(await stuck.begin("StreamBlocks"), framed(field(3, "dev") + field(8, 1)), end=True)
                await publish(host)
                stream = await reader.begin("StreamBlocks")
                await reader.send(stream, framed(field(3, "dev") + field(8, 1) + field(10, 1)), end=True)
                answer = await reader.finished(stream)
                assert answer.status == 0, answer.message
                for message in answer.messages:
                    (body,) = fields(message)[3]
                    assert isinstance(body, bytes)
                    read.append(hashlib.sha256(body).hexdigest())
                assert node.runtime.plugins[NAME].state is PluginState.RUNNING
                assert not node.seen.of(EventKind.REMOTE_REFUSED)

    async def over_a_socket(folder: Path) -> None:
        with short_folder() as short:
            async with (
                serving(folder, listen=(UnixAddress(short / "socket"),), ring_bytes=1 << 20),
                sdk.connect(f"unix:{short / 'socket'}", name=NAME, version="1.0.0", chain="dev") as host,
            ):
                await publish(host)

    digests = set()
    for way in (over_tls, over_a_socket):
        folder = tmp_path / way.__name__
        folder.mkdir()
        trio.run(way, folder)
        digests.add(digest_of(folder / "store.db"))
    assert read == [hashlib.sha256(raw_block(height)).hexdigest() for height in range(1, BLOCKS + 1)]
    assert len(digests) == 1


@pytest.mark.parametrize("ending", ["ends", "is cancelled", "is cut"])
def test_a_plugin_leaves_no_socket_behind(tmp_path: Path, ending: str) -> None:
    """However it ends: the farewell of TLS needs the other side, and an event loop that may have ended by then."""
    authority = Authority.make(tmp_path / "tls")

    async def plugin(node: Served) -> None:
        (address,) = node.runtime.listening
        with trio.CancelScope() as scope:
            async with sdk.connect(address, name=NAME, version="1.0.0", chain="dev", ssl=authority.client()) as host:
                await host.publish(bytes(10), height=1, hash=bytes([1] * 32), parent=bytes(32), position=b"1")
                await host.wait_durable(b"1")
                if ending == "is cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                elif ending == "is cut":
                    remote: Any = node.runtime._remote
                    for each in remote._gate._server.protocols:
                        each.cut("the test cuts it")
                    with pytest.raises(sdk.Disconnected):
                        await host.wait_stopped()

    async def main() -> None:
        async with serving(tmp_path, listen=(authority.address(),)) as node:
            with trio.fail_after(20):
                await plugin(node)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trio.run(main)
        gc.collect()
    assert [str(each.message) for each in said if each.category is ResourceWarning] == []
