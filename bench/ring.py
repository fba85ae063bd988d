"""The ring in process: frames per second from a publishing thread to Python objects that were read."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator

import trio

from bench.building import TARGET
from bench.measuring import Row, cpus, in_turns
from bench.peers import callbacks, processes
from supervm_rt import _abi
from supervm_rt.model.manifest import Capability
from supervm_rt.model.plugin import Deadlines
from supervm_rt.runtime.config import DEFAULT_RING_BYTES
from supervm_rt.transports.native.in_process import InProcessTransport

SIZES = {300: "300 B", 4 << 10: "4 KiB", 64 << 10: "64 KiB", 1_000_000: "1 MB"}
VOLUME = 6 << 30
"""Bytes that ours and the limit move in one turn, unless that would be more frames than below."""
MOST_FRAMES = 4_000_000
PEER_SHARE = {"ctypes callback": 16, "cffi callback": 16, "pyzmq ipc": 16, "multiprocessing.Pipe": 24}
"""A peer moves this part of it: a turn of each takes about as long."""
AIMS = {(300, "ctypes callback"): 200.0, (300, "pyzmq ipc"): 20.0, (64 << 10, "memcpy"): 0.6, (1_000_000, "memcpy"): 0.8}
PEERS: dict[str, Callable[[int, int, int], float]] = {
    "ctypes callback": callbacks.ctypes_rate,
    "cffi callback": callbacks.cffi_rate,
    "pyzmq ipc": processes.zmq_rate,
    "multiprocessing.Pipe": processes.pipe_rate,
}
COPY, RESERVE, RELEASE = 0, 1, 2
WAYS = {COPY: "copy", RESERVE: "reserve + commit", RELEASE: "publish with release"}


def ring_rate(count: int, length: int, way: int, producer: int) -> float:
    """Frames per second through the transport that the runtime uses; ``producer``: the CPU of the plugin's thread."""
    return trio.run(_receive_all, count, length, way, producer)


async def _receive_all(count: int, length: int, way: int, producer: int) -> float:
    from _reading import read_frames

    transport = InProcessTransport(
        _abi.SealedLibrary((TARGET / "publisher.so").read_bytes()),
        name="bench",
        generation=1,
        ring_bytes=DEFAULT_RING_BYTES,
        heartbeat=None,
        deadlines=Deadlines(),
    )
    await transport.load()
    settings = {"count": count, "length": length, "way": way, "cpu": producer}
    transport.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=json.dumps(settings).encode(), position=None)
    await transport.init()
    left = count + 1  # the end of input is a frame too
    begun = time.perf_counter()
    await transport.start()
    while left:
        frames = (await transport.receive()).frames
        read_frames(frames)
        left -= len(frames)
        del frames
    elapsed = time.perf_counter() - begun
    await transport.stop()
    await transport.unload()
    return count / elapsed


def _limit(count: int, length: int) -> float:
    from _reading import copy_limit

    seconds: float = copy_limit(DEFAULT_RING_BYTES, length, count)
    return count / seconds


def rows(quick: bool) -> Iterator[Row]:
    """All rows of the ring, each peer of a size from the same turns."""
    consumer, producer = cpus()
    os.sched_setaffinity(0, {consumer})
    try:
        for length, size in SIZES.items():
            count = min(VOLUME // length, MOST_FRAMES) // (16 if quick else 1)
            runs: dict[str, Callable[[], float]] = {
                name: functools.partial(ring_rate, count, length, way, producer) for way, name in WAYS.items()
            }
            for name, peer in PEERS.items():
                few = max(count // PEER_SHARE[name], 200)
                runs[name] = functools.partial(peer, few, length, producer)
            runs["memcpy"] = functools.partial(_limit, count, length)
            rates = in_turns(runs)
            for name in (*PEERS, "memcpy"):
                yield _row(f"ring {size}, copy, to {name}", rates["copy"], rates[name], length, AIMS.get((length, name)))
            for name in list(WAYS.values())[1:]:
                yield _row(f"ring {size}, {name}, to memcpy", rates[name], rates["memcpy"], length, None)
    finally:
        os.sched_setaffinity(0, {consumer, producer})


def _row(name: str, ours: float, peer: float, length: int, aim: float | None) -> Row:
    if length < 64 << 10:
        return Row(name, ours / 1e6, peer / 1e6, "M frames/s", aim=aim)
    return Row(name, ours * length / 1e9, peer * length / 1e9, "GB/s", aim=aim)
