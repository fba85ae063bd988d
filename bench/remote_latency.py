"""From a plugin's publish to a subscriber, over gRPC both ways and through the store, beside a bare stream of grpclib."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from grpclib.client import Channel
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream

import supervm_rt
from bench.building import ROOT
from bench.measuring import ROUNDS, Row, cpus, turns
from supervm_rt import PolicyLevel, RuntimeConfig, sdk
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.service import Codec

ROUTE = "/supervm.plugin.PluginHost/StreamBlocks"
PAYLOAD = bytes(300)


class Times:
    """When each of so many blocks was published, and when it arrived."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent: list[float] = []
        self.taken: list[float] = []
        self.arrived = asyncio.Event()

    async def read(self, channel: Channel) -> None:
        """Subscribes, and notes arrivals."""
        async with channel.request(ROUTE, Cardinality.UNARY_STREAM, bytes, bytes) as stream:
            await stream.send_message(bytes(proto.StreamBlocksRequest(chains=["dev"])), end=True)
            while len(self.taken) < self.count:
                await stream.recv_message()
                self.taken.append(time.perf_counter())
                self.arrived.set()
            await stream.cancel()

    async def publish(self, say: Callable[[int], Any]) -> None:
        """One block after another, each once the one before has arrived."""
        for number in range(self.count):
            self.arrived.clear()
            self.sent.append(time.perf_counter())
            await say(number)
            await self.arrived.wait()

    def microseconds(self) -> tuple[float, float]:
        """Median and 99th percentile; the first tenth does not count."""
        spans = [1e6 * (end - begin) for begin, end in zip(self.sent, self.taken, strict=True)][self.count // 10 :]
        return statistics.median(spans), statistics.quantiles(spans, n=100)[98]


async def ours(folder: Path, count: int) -> tuple[float, float]:
    """Plugin, node and subscriber in one process: each block is committed to the disk on its way."""
    import trio_asyncio  # takes over how asyncio makes its loops

    times = Times(count)
    path = folder / "socket"
    config = RuntimeConfig(store=folder / "store.db", plugins=(), policy=PolicyLevel.DEV, listen=(UnixAddress(path),))
    async with supervm_rt.open_runtime(config), trio_asyncio.open_loop():

        async def both() -> None:
            async with sdk.connect_asyncio(f"unix:{path}", name="bench", version="1.0.0", chain="dev") as node:
                channel = Channel(path=str(path), codec=Codec())
                reading = asyncio.ensure_future(times.read(channel))

                async def say(number: int) -> None:
                    ids = [(number + step).to_bytes(32, "big") for step in (1, 2)]
                    await node.publish(PAYLOAD, height=number + 1, parent=ids[0], hash=ids[1])

                try:
                    await times.publish(say)
                    await reading
                finally:
                    reading.cancel()
                    channel.close()

        await trio_asyncio.aio_as_trio(both)()
    return times.microseconds()


async def bare(folder: Path, count: int) -> tuple[float, float]:
    """grpclib on asyncio: what is said goes straight to the subscriber."""
    times = Times(count)
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    path = str(folder / "bare")

    class Service:
        async def stream(self, stream: Stream[Any, Any]) -> None:
            await stream.recv_message()
            while True:
                await stream.send_message(await queue.get())

        def __mapping__(self) -> dict[str, Handler]:
            return {ROUTE: Handler(self.stream, Cardinality.UNARY_STREAM, bytes, bytes)}

    server = Server([Service()], codec=Codec())
    await server.start(path=path)
    channel = Channel(path=path, codec=Codec())
    reading = asyncio.ensure_future(times.read(channel))

    async def say(number: int) -> None:
        await queue.put(bytes(proto.BlockMessage(chain="dev", height=number + 1, block_bytes=PAYLOAD)))

    await times.publish(say)
    await reading
    channel.close()
    server.close()
    await server.wait_closed()
    return times.microseconds()


def rows(quick: bool) -> list[Row]:
    """Two rows, in microseconds: a ratio above 1 says how much longer it takes.

    Each turn is a process of its own, since the library that joins the loops changes how a process makes them. It has one CPU,
    with all its threads.
    """
    count = 100 if quick else 1_000
    found = turns({kind: partial(_in_process_of_its_own, kind, count) for kind in KINDS}, 1 if quick else ROUNDS)
    note = "ours goes through verification and a commit to the disk; the peer is a bare stream of grpclib"
    return [
        Row(
            f"gRPC publish to subscriber, {which}",
            statistics.median(one[place] for one in found["ours"]),
            statistics.median(one[place] for one in found["bare"]),
            "µs",
            note,
        )
        for place, which in enumerate(("p50", "p99"))
    ]


KINDS: dict[str, Callable[[Path, int], tuple[float, float]]] = {
    "ours": lambda folder, count: trio.run(ours, folder, count),
    "bare": lambda folder, count: asyncio.run(bare(folder, count)),
}


def _in_process_of_its_own(kind: str, count: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "bench.remote_latency", kind, str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=100)
    median, high = json.loads(done.stdout)
    return median, high


def main() -> None:
    """One turn: prints what it found."""
    kind, count = sys.argv[1:]
    os.sched_setaffinity(0, {cpus()[0]})
    with tempfile.TemporaryDirectory(prefix="supervm-bench-") as name:
        print(json.dumps(KINDS[kind](Path(name), int(count))))


if __name__ == "__main__":
    main()
