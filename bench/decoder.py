"""Reading the messages of remote plugins: the decoder beside betterproto2 and Google's protobuf (upb), all from bytes to values.

The decoder makes frames, checked against what a plugin may say. The others make messages of their own, of which the three fields
that every block needs are asked for.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.measuring import Row, cpus, in_turns
from fuzz.remote_differential.reference import BlockMessage
from supervm_rt.transports.remote._frames import hear
from supervm_rt.transports.remote.messages_generated.supervm import plugin

SHAPES = ((300, 1, 200_000), (65_536, 1, 60_000), (300, 500, 1_500), (65_536, 16, 3_000))
"""Bytes of a payload, blocks in a message, messages that ours reads in one turn."""
SLOWER = 60
"""By so much less betterproto2 reads in a turn."""


def rows(quick: bool) -> Iterator[Row]:
    """Two rows for each shape, all on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus()[0]})
    try:
        for size, count, messages in SHAPES:
            yield from _rows(size, count, messages // (20 if quick else 1))
    finally:
        os.sched_setaffinity(0, allowed)


def _message(size: int, count: int) -> bytes:
    chance = random.Random(size)
    blocks = [
        BlockMessage(
            chain="bitcoin",
            height=800_000 + number,
            block_bytes=chance.randbytes(size),
            hash=chance.randbytes(32),
            parent=chance.randbytes(32),
            position=b"00042:0001234567",
        )
        for number in range(count)
    ]
    if count == 1:
        return bytes(blocks[0].SerializeToString())
    batch = BlockMessage()
    batch.batch.blocks.extend(blocks)
    return bytes(batch.SerializeToString())


def _ours(data: bytes) -> None:
    hear(data, generation=1, chain=b"bitcoin")


def _values(message: Any) -> None:
    for block in message.batch.blocks if message.batch else (message,):
        _ = block.block_bytes, block.hash, block.height


def _google(data: bytes) -> None:
    message = BlockMessage.FromString(data)
    for block in message.batch.blocks if message.HasField("batch") else (message,):
        _ = block.block_bytes, block.hash, block.height


def _betterproto2(data: bytes) -> None:
    _values(plugin.BlockMessage.FromString(data))


def _rate(read: Callable[[bytes], None], data: bytes, count: int, rounds: int) -> Callable[[], float]:
    def run() -> float:
        begun = time.perf_counter()
        for _ in range(rounds):
            read(data)
        return count * rounds / (time.perf_counter() - begun)

    return run


def _rows(size: int, count: int, messages: int) -> Iterator[Row]:
    data = _message(size, count)
    rates = in_turns(
        {
            "ours": _rate(_ours, data, count, messages),
            "google": _rate(_google, data, count, messages),
            "betterproto2": _rate(_betterproto2, data, count, max(messages // SLOWER, 1)),
        }
    )
    what = f"decode {'one' if count == 1 else count} of {'300 B' if size == 300 else '64 KiB'}"
    for peer, title in (("google", "protobuf (upb)"), ("betterproto2", "betterproto2")):
        yield Row(f"{what}, to {title}", rates["ours"], rates[peer], "blocks/s", f"{len(data)} bytes a message")
