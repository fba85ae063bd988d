"""A sandboxed child beside the same plugin in process and beside other ways between two processes; what starting it costs."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

import trio

from bench.building import TARGET
from bench.measuring import Row, cpus, in_turns
from bench.peers import processes, shared_memory
from supervm_rt import _abi
from supervm_rt.model.manifest import Capability, Security
from supervm_rt.model.plugin import Deadlines
from supervm_rt.runtime.config import DEFAULT_RING_BYTES
from supervm_rt.transports.interface import PluginTransport
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.transports.native.in_process import InProcessTransport

SIZES = {300: "300 B", 64 << 10: "64 KiB"}
VOLUME = 6 << 30
MOST_FRAMES = 4_000_000
AIM = 0.9
PEERS: dict[str, tuple[Callable[[int, int, int], float], int]] = {
    "pyzmq ipc": (processes.zmq_rate, 16),
    "iceoryx2": (shared_memory.iceoryx_rate, 32),
}
"""Each with the part of the frames that it moves: a turn of each takes about as long."""
STARTS = 31


def _in_process() -> PluginTransport:
    return InProcessTransport(
        _abi.SealedLibrary((TARGET / "publisher.so").read_bytes()),
        name="bench",
        generation=1,
        ring_bytes=DEFAULT_RING_BYTES,
        heartbeat=None,
        deadlines=Deadlines(),
    )


def _child() -> PluginTransport:
    return ChildTransport(
        _abi.SealedLibrary((TARGET / "publisher.so").read_bytes()),
        name="bench",
        generation=1,
        ring_bytes=DEFAULT_RING_BYTES,
        heartbeat=None,
        deadlines=Deadlines(),
        security=Security(),
        folder=TARGET,
        read_paths={},
    )


async def _rate(count: int, length: int, sandboxed: bool) -> float:
    from _reading import read_frames

    consumer, producer = cpus_of_old
    transport = _child() if sandboxed else _in_process()
    # The plugin pins its own thread; a sandboxed one may not, and inherits from the process that starts it.
    os.sched_setaffinity(0, {producer} if sandboxed else {consumer})
    await transport.load()
    os.sched_setaffinity(0, {consumer})
    settings = {"count": count, "length": length, "way": 0, "cpu": producer}
    transport.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=json.dumps(settings).encode(), position=None)
    await transport.init()
    left = count + 1  # the end of input is a frame too
    begun = time.perf_counter()
    await transport.start()
    while left:
        frames = (await transport.receive()).frames
        read_frames(list(frames))
        left -= len(frames)
        del frames
    elapsed = time.perf_counter() - begun
    await transport.stop()
    await transport.unload()
    return count / elapsed


def _limit(count: int, length: int, copied: bool) -> float:
    from _reading import relay_limit

    consumer, producer = cpus_of_old
    os.sched_setaffinity(0, {consumer})
    stretch = (1 << 20) // length * length if copied else 0
    return count / float(relay_limit(length, count, stretch, producer))


def _peer(rate: Callable[[int, int, int], float], count: int, length: int) -> float:
    consumer, producer = cpus_of_old
    os.sched_setaffinity(0, {consumer})
    return rate(count, length, producer)


cpus_of_old = cpus()
"""Before anything is pinned."""


async def _start() -> float:
    """Seconds from the decision to start until the library is loaded and confined."""
    transport = _child()
    begun = time.perf_counter()
    await transport.load()
    elapsed = time.perf_counter() - begun
    await transport.unload()
    return elapsed


def _plain() -> float:
    begun = time.perf_counter()
    subprocess.run(["/bin/true"], check=True)
    return time.perf_counter() - begun


def rows(quick: bool) -> Iterator[Row]:
    """Throughput, then the start."""
    try:
        for length, size in SIZES.items():
            count = min(VOLUME // length, MOST_FRAMES) // (16 if quick else 1)
            runs: dict[str, Callable[[], float]] = {
                "sandboxed": functools.partial(trio.run, _rate, count, length, True),
                "in process": functools.partial(trio.run, _rate, count, length, False),
            }
            runs["C alone, copied out"] = functools.partial(_limit, count, length, True)
            runs["C alone, in place"] = functools.partial(_limit, count, length, False)
            for name, (peer, share) in PEERS.items():
                runs[name] = functools.partial(_peer, peer, max(count // share, 200), length)
            rates = in_turns(runs)
            factor, unit = (1e6, "M frames/s") if length < 64 << 10 else (1e9 / length, "GB/s")
            copied, in_place = rates.pop("C alone, copied out"), rates.pop("C alone, in place")
            yield Row(f"two threads in C, {size}, copied out, to in place", copied / factor, in_place / factor, unit)
            for name in list(rates)[1:]:
                aim = AIM if name == "in process" else None
                row = f"sandboxed {size}, copy, to {name}"
                yield Row(row, rates["sandboxed"] / factor, rates[name] / factor, unit, aim=aim)
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, set(cpus_of_old))
    trio.run(_start)  # what is found out once does not count
    starts, plain = [], []
    for _ in range(STARTS):
        starts.append(trio.run(_start))
        plain.append(_plain())
    note = "aim: under 15 ms"
    yield Row(
        "start of a sandboxed plugin until loaded", statistics.median(starts) * 1e3, statistics.median(plain) * 1e3, "ms", note
    )
