"""How much a node holds for many remote plugins and readers that are stuck.

``python -m tests.remote.capacity [--idle 1000] [--streaming 100]``: plugins that are registered with an open exchange and say
nothing, and plugins that send blocks, each of a chain of its own, beside a reader that asked for that chain and takes nothing.
They send until an honest plugin among them has sent a few blocks, each when the one before was acknowledged: how far they come
meanwhile is bounded, so that it has its turns, and how long it waits is said, beside how long it waited before they came. The
node is a process of its own, whose memory is compared with the bound; the last line is JSON, the exit status 0 where all held.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

import supervm_rt
from supervm_rt import PluginConfig, PolicyLevel, RuntimeConfig
from supervm_rt.transports.remote.addresses import UnixAddress
from tests.remote.messages import field, fields, register, registered
from tests.remote.support import RawPeer, framed, peer
from tests.store.support import environment

WINDOW = 1 << 20
"""Bytes of blocks that one plugin may have under way."""
BLOCKS = 65
"""Of each that streams, at least: more than a page of the feed."""
BLOCK_BYTES = 64 << 10
HONEST = "honest"
HONEST_BLOCKS = 20
TURN = 4 * WINDOW // 4 // BLOCK_BYTES
"""Blocks that one of the others may get committed while the honest one gets one: four batches, each a quarter of its window.
Where turns are taken it is about one."""
IDLE_BOUND = 200 << 10
"""Bytes of memory for each idle plugin, its connection and its exchange included."""
STREAMING_BOUND = 16 << 20
"""Bytes for each plugin that streams, and the reader beside it: 4 MiB and one message that wait on its stream, its window and
what is being committed (1.75 MiB), a page of the feed (4 MiB and one block), what the reader was not sent yet (1 MiB); and half
as much again for what lies between."""
STORE_BOUND = 3 * (64 << 20)
"""Bytes for the pages that SQLite keeps: of the writer, and of two connections on which the feed is read."""


@dataclass
class Found:
    """What was measured. Bytes."""

    idle: int
    streaming: int
    at_rest: int
    with_idle: int
    highest: int
    bound: int
    honest_blocks: int
    """Of the honest plugin, sent while the others streamed, and acknowledged."""
    others_blocks: int
    """The most that one of the others had acknowledged meanwhile."""
    others_bound: int
    alone_ms: tuple[float, float]
    """From a block to its acknowledgement, median and longest, of the honest plugin beside the idle ones."""
    beside_ms: tuple[float, float]
    """The same while the others streamed."""
    seconds: float
    held: bool


def memory(process: int, what: str = "VmRSS") -> int:
    text = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{what}:"))


def block(height: int, of: str = HONEST, size: int = BLOCK_BYTES) -> bytes:
    return (
        field(1, "dev")
        + field(2, height)
        + field(3, bytes(size))
        + field(6, f"{of} {height}")
        + field(7, f"{of} {height - 1}")
        + field(10, str(height))
    )


def durable(raw: RawPeer, exchange: int) -> int:
    """The height of the last block that was acknowledged. Forgets what was said until then."""
    said = [fields(message)[30][0] for message in raw.answers[exchange].messages if 30 in fields(message)]
    positions = [position for each in said if isinstance(each, bytes) for position in fields(each)[1]]
    if not positions:
        return 0
    del raw.answers[exchange].messages[:-1]
    assert isinstance(positions[-1], bytes)
    return int(positions[-1])


@dataclass
class Sender:
    """A plugin that streams."""

    name: str
    raw: RawPeer
    exchange: int
    durable: int = 0

    async def send(self, enough: trio.Event) -> None:
        height = 0
        while height < BLOCKS or not enough.is_set():
            height += 1
            await self.raw.send(self.exchange, framed(block(height, self.name)))
            self.durable = max(self.durable, durable(self.raw, self.exchange))
        # Each is told when all that it sent is durable: nobody starves.
        while self.durable < height:
            await self.raw.hear()
            self.durable = max(self.durable, durable(self.raw, self.exchange))


async def waits(raw: RawPeer, exchange: int, heights: range) -> tuple[float, float]:
    """Sends block after block, each when the one before is durable. How long each took: median and longest, in milliseconds."""
    found = []
    for height in heights:
        begun = time.monotonic()
        await raw.send(exchange, framed(block(height, size=300)))
        while durable(raw, exchange) < height:
            await raw.hear()
        found.append(1e3 * (time.monotonic() - begun))
    return round(statistics.median(found), 1), round(max(found), 1)


async def plugin(path: Path, name: str, stack: AsyncExitStack) -> tuple[RawPeer, int]:
    raw = await stack.enter_async_context(peer(path))
    answer = await raw.call("Register", register(name) + field(6, 1))
    assert registered(answer.messages[0]), answer
    return raw, await raw.begin("BlockExchange")


async def measure(path: Path, process: int, idle: int, streaming: int) -> Found:
    begun = time.monotonic()
    at_rest = memory(process)
    async with AsyncExitStack() as stack:
        for number in range(idle):
            await plugin(path, f"org.example.idle-{number}", stack)
        with_idle = memory(process)
        honest, exchange = await plugin(path, HONEST, stack)
        with trio.fail_after(60):
            alone = await waits(honest, exchange, range(1, HONEST_BLOCKS + 1))
        names = [name_of(number) for number in range(streaming)]
        senders = [Sender(name, *await plugin(path, name, stack)) for name in names]
        with trio.fail_after(200):
            async with trio.open_nursery() as nursery:
                enough = trio.Event()
                for sender in senders:
                    nursery.start_soon(sender.send, enough)
                while not all(sender.durable >= BLOCKS for sender in senders):
                    await trio.sleep(0.001)
                for name in names:  # readers that take nothing
                    stuck = await stack.enter_async_context(peer(path))
                    await stuck.send(await stuck.begin("StreamBlocks"), framed(field(3, name)), end=True)
                before = [sender.durable for sender in senders]
                beside = await waits(honest, exchange, range(HONEST_BLOCKS + 1, 2 * HONEST_BLOCKS + 1))
                others = max(sender.durable - start for sender, start in zip(senders, before, strict=True))
                enough.set()
            reader = await stack.enter_async_context(peer(path))
            reading = await reader.begin("StreamBlocks")
            await reader.send(reading, framed(field(3, names[-1])), end=True)
            answer = await reader.said(reading, BLOCKS)
        highest = memory(process, "VmHWM")
    bound = at_rest + idle * IDLE_BOUND + streaming * STREAMING_BOUND + STORE_BOUND
    others_bound = HONEST_BLOCKS * TURN
    held = len(answer.messages) >= BLOCKS and with_idle <= at_rest + idle * IDLE_BOUND and highest <= bound
    return Found(
        idle=idle,
        streaming=streaming,
        at_rest=at_rest,
        with_idle=with_idle,
        highest=highest,
        bound=bound,
        honest_blocks=HONEST_BLOCKS,
        others_blocks=others,
        others_bound=others_bound,
        alone_ms=alone,
        beside_ms=beside,
        seconds=round(time.monotonic() - begun, 1),
        held=held and others <= others_bound,
    )


def name_of(number: int) -> str:
    """Of a plugin that streams, and of its chain."""
    return f"sender-{number}"


MANIFEST = "{id: org.example.any, name: Any, version: 1.0.0, chain: dev, capabilities: [block_stream], runMode: grpc}"


async def serve(folder: Path, streaming: int) -> None:
    """The node. Each plugin has a chain of its own, which nobody but the operator can give it."""
    names = (HONEST, *map(name_of, range(streaming)))
    config = RuntimeConfig(
        store=folder / "store.db",
        policy=PolicyLevel.DEV,
        ring_bytes=WINDOW,
        plugins=tuple(PluginConfig(path=folder / "plugin", name=name, chain=name) for name in names),
        listen=(UnixAddress(folder / "socket"),),
    )
    async with supervm_rt.open_runtime(config):
        await trio.sleep_forever()


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def run(idle: int, streaming: int) -> Found:
    with tempfile.TemporaryDirectory(prefix="supervm-") as name:
        folder = Path(name)
        (folder / "plugin").mkdir()
        (folder / "plugin/plugin.yaml").write_text(MANIFEST)
        command = [sys.executable, "-m", "tests.remote.capacity", "--streaming", str(streaming), "--serve", name]
        with subprocess.Popen(command, env=environment()) as node:
            try:
                deadline = time.monotonic() + 30
                while not listens(folder / "socket"):
                    assert node.poll() is None, "the node has ended"
                    assert time.monotonic() < deadline, "the node does not listen"
                    time.sleep(0.01)
                return trio.run(measure, folder / "socket", node.pid, idle, streaming)
            finally:
                node.kill()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.remote.capacity")
    parser.add_argument("--idle", type=int, default=1_000)
    parser.add_argument("--streaming", type=int, default=100)
    parser.add_argument("--serve", type=Path, metavar="FOLDER", help="be the node, in this folder")
    options = parser.parse_args()
    if options.serve is not None:
        trio.run(serve, options.serve, options.streaming)
    if os.sysconf("SC_OPEN_MAX") < options.idle + 3 * options.streaming + 100:
        print("too few descriptors: raise ulimit -n", file=sys.stderr)
        return 2
    found = run(options.idle, options.streaming)
    print(json.dumps(asdict(found)))
    return 0 if found.held else 1


if __name__ == "__main__":
    sys.exit(main())
