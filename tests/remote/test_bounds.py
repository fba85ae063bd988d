"""What waits in the host for a remote plugin has a bound in bytes that are held, whatever the peer sends."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import cast

import pytest

from supervm_rt import Deadlines
from supervm_rt.transports.remote.messages import MessageBuffer
from supervm_rt.transports.remote.received import hear
from supervm_rt.transports.remote.sessions import Sessions
from supervm_rt.transports.remote.transport import MAX_FRAMES, MAX_WAITING, RemoteTransport
from supervm_rt.trust.manifest import parse_manifest
from tests.remote.messages import field
from tests.remote.support import framed

EXAMPLE = Path(__file__).parents[2] / "examples" / "remote" / "plugin.yaml"
BATCHES = 40


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
