"""What waits in the host for a remote plugin has a bound in bytes that are held, whatever the peer sends."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from supervm_rt import Deadlines
from supervm_rt.transports.remote.http2 import STREAM_WINDOW
from supervm_rt.transports.remote.messages import MessageBuffer
from supervm_rt.transports.remote.received import hear
from supervm_rt.transports.remote.service import HEARD_AT_ONCE
from supervm_rt.transports.remote.sessions import Sessions
from supervm_rt.transports.remote.transport import MAX_FRAMES, MAX_WAITING, RemoteTransport
from supervm_rt.trust.manifest import parse_manifest
from tests.remote.messages import HASH, PARENT, field, register, registered
from tests.remote.support import framed, peer, serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "remote" / "plugin.yaml"
BATCHES = 40
NAME = "org.example.greedy"


def test_frames_without_a_payload_fill_the_window_too() -> None:
    """Ends of input by the thousand cost no credit: a plugin that floods them is held back all the same."""
    batch = field(23, field(1, field(22, b"")) * MAX_FRAMES)
    transport = RemoteTransport(
        cast("Sessions", None),
        "one",
        manifest=parse_manifest(EXAMPLE.read_bytes()),
        generation=1,
        window=1 << 20,
        deadlines=Deadlines(),
    )

    async def flood() -> None:
        for _ in range(BATCHES):
            await transport.hear(hear(batch, b"", 1)[0])

    async def main() -> int:
        flooding = asyncio.create_task(flood())
        taken = 0
        while not flooding.done() or taken < BATCHES * MAX_FRAMES:
            for _ in range(BATCHES):
                await asyncio.sleep(0)
            statistics = transport.statistics()
            assert statistics is not None
            assert statistics.pinned_frames < MAX_WAITING + MAX_FRAMES
            taken += len(transport.receive_rest().frames)
        return taken

    assert asyncio.run(main()) == BATCHES * MAX_FRAMES


def test_a_plugin_that_ignores_its_credit_is_read_no_further(tmp_path: Path) -> None:
    """Whatever it is allowed to send and sends, the node holds its window, and what two windows of HTTP/2 let through."""
    window, size, blocks = 1 << 20, 100_000, 250
    most = 2 * window + 2 * (STREAM_WINDOW + size)

    def large(height: int) -> bytes:
        ids = field(HASH, bytes([height] * 32)) + field(PARENT, bytes([height - 1] * 32))
        return framed(field(1, "dev") + field(2, height) + field(3, bytes(size)) + ids)

    async def main() -> None:
        async with serving(tmp_path, ring_bytes=window) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
            exchange = await raw.begin("BlockExchange")
            remote: Any = node.runtime._remote
            (protocol,) = remote._gate._server.protocols
            left = b"".join(map(large, range(1, blocks + 1)))
            whole = len(left)
            assert whole > 2 * most

            def send() -> None:
                nonlocal left
                while room := min(raw.http.local_flow_control_window(exchange), raw.http.max_outbound_frame_size, len(left)):
                    raw.http.send_data(exchange, left[:room])
                    left = left[room:]

            async with node.runtime.store_turn:  # nothing is committed meanwhile
                turns = 0
                with trio.fail_after(60):
                    while turns < 50 and left:
                        before = len(left)
                        send()
                        await raw.flush()
                        # Behind each answer is what the host gave back before.
                        assert (await raw.call("Health", b"")).status == 0
                        ring = node.runtime.plugins[NAME].ring
                        full = ring is not None and ring.used >= window
                        turns = turns + 1 if full and len(left) == before else 0
                assert whole - len(left) <= most
                # What has come of one message was given back to the window, so that it can come to its end.
                assert protocol.connection.held <= STREAM_WINDOW + size
                ring = node.runtime.plugins[NAME].ring
                assert ring is not None
                assert window <= ring.used < window + HEARD_AT_ONCE + size
                assert ring.waits >= 1
            with trio.fail_after(60):
                while (tip := node.runtime.chains["dev"].tip) is None or tip.height < blocks:
                    send()
                    await raw.flush()
                    assert (await raw.call("Health", b"")).status == 0
            assert node.runtime.plugins[NAME].failure is None

    trio.run(main)


def test_a_message_keeps_no_larger_one_alive() -> None:
    """The end of a large message and a small one behind it may come in the same bytes."""
    large, small = framed(bytes(1 << 20)), framed(bytes(1 << 14))
    buffer = MessageBuffer(lambda size: None, 1 << 24, lambda size: None)
    buffer.add(large[:-10], len(large) - 10)
    buffer.add(large[-10:] + small, 10 + len(small))
    first, second = asyncio.run(buffer.take())
    assert (len(first), len(second)) == (1 << 20, 1 << 14)
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)


def test_a_message_in_crumbs_takes_no_more_memory_than_it_has_bytes() -> None:
    """Each piece would be an object of its own, of 35 bytes and more."""
    size = 200_000
    buffer = MessageBuffer(lambda size: None, 1 << 24, lambda size: None)
    buffer.add(size.to_bytes(5), 5)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(size // 2 - 1):
            buffer.add(bytes((1, 2)), 2)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * size
    buffer.add(b"\1\2", 2)
    (message,) = asyncio.run(buffer.take())
    assert bytes(message) == b"\1\2" * (size // 2)


@pytest.mark.parametrize("sizes", [(1, 5_000, 3), (5_000, 1, 1, 1, 5_000), (2,) * 50, (1 << 16, 1 << 16, 7)])
def test_a_message_comes_out_as_it_was_in_whatever_pieces_it_came(sizes: tuple[int, ...]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(pieces)
    buffer = MessageBuffer(lambda size: None, 1 << 24, lambda size: None)
    buffer.add(framed(whole)[:2], 2)
    buffer.add(framed(whole)[2:5], 3)
    for piece in pieces:
        buffer.add(piece, len(piece))
    (message,) = asyncio.run(buffer.take())
    assert bytes(message) == whole
    assert memoryview(message).readonly
