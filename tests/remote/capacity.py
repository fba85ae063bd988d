"""How much a node holds for many remote plugins and readers that are stuck.

``python -m tests.remote.capacity [--idle 1000] [--streaming 100]``: plugins that are registered with an open exchange and say
nothing, and plugins that send blocks, each beside a reader that asked for all of them and takes nothing. The node is a process
of its own, whose memory is compared with the bound; the last line is JSON, the exit status 0 where all held.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from tests.remote.messages import field, register, registered
from tests.remote.support import RawPeer, framed, peer

WINDOW = 1 << 20
"""Bytes of blocks that one plugin may have under way."""
BLOCKS = 40
BLOCK_BYTES = 64 << 10
IDLE_BOUND = 200 << 10
"""Bytes of memory for each idle plugin, its connection and its exchange included."""
STREAMING_BOUND = 4 * WINDOW + (4 << 20)
"""Bytes for each plugin that streams, and the reader beside it: its window, what is being committed, and a page of the feed."""


@dataclass
class Found:
    """What was measured. Bytes."""

    idle: int
    streaming: int
    at_rest: int
    with_idle: int
    highest: int
    bound: int
    seconds: float
    held: bool


def memory(process: int, what: str = "VmRSS") -> int:
    text = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{what}:"))


def block(height: int) -> bytes:
    return (
        field(1, "dev")
        + field(2, height)
        + field(3, bytes(BLOCK_BYTES))
        + field(6, height.to_bytes(32, "big"))
        + field(7, (height - 1).to_bytes(32, "big"))
        + field(10, str(height))
    )


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
        senders = [await plugin(path, f"org.example.sender-{number}", stack) for number in range(streaming)]
        for _ in range(streaming):  # readers that take nothing
            stuck = await stack.enter_async_context(peer(path))
            await stuck.send(await stuck.begin("StreamBlocks"), framed(b""), end=True)
        reader = await stack.enter_async_context(peer(path))
        reading = await reader.begin("StreamBlocks")
        await reader.send(reading, framed(b""), end=True)

        async def send(raw: RawPeer, exchange: int) -> None:
            for height in range(1, BLOCKS + 1):
                await raw.send(exchange, framed(block(height)))
            # Each is told when all that it sent is durable: nobody starves.
            while not any(field(10, str(BLOCKS))[1:] in message for message in raw.answers[exchange].messages):
                await raw.hear()

        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for raw, exchange in senders:
                    nursery.start_soon(send, raw, exchange)
            answer = await reader.said(reading, BLOCKS)
        highest = memory(process, "VmHWM")
    bound = at_rest + idle * IDLE_BOUND + streaming * STREAMING_BOUND
    held = len(answer.messages) >= BLOCKS and with_idle <= at_rest + idle * IDLE_BOUND and highest <= bound
    return Found(idle, streaming, at_rest, with_idle, highest, bound, round(time.monotonic() - begun, 1), held)


def run(idle: int, streaming: int) -> Found:
    with tempfile.TemporaryDirectory(prefix="supervm-") as name:
        folder = Path(name)
        (folder / "node.yaml").write_text("store: store.db\npolicy: dev\nring: 1MiB\nlisten: [{unix: socket}]\n")
        command = [sys.executable, "-m", "supervm_rt", "run", str(folder / "node.yaml")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
            try:
                deadline = time.monotonic() + 30
                while not (folder / "socket").exists():
                    assert time.monotonic() < deadline, "the node does not listen"
                    time.sleep(0.01)
                return trio.run(measure, folder / "socket", node.pid, idle, streaming)
            finally:
                node.send_signal(signal.SIGTERM)
                try:
                    node.wait(60)
                finally:
                    node.kill()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.remote.capacity")
    parser.add_argument("--idle", type=int, default=1_000)
    parser.add_argument("--streaming", type=int, default=100)
    options = parser.parse_args()
    if os.sysconf("SC_OPEN_MAX") < options.idle + 3 * options.streaming + 100:
        print("too few descriptors: raise ulimit -n", file=sys.stderr)
        return 2
    found = run(options.idle, options.streaming)
    print(json.dumps(asdict(found)))
    return 0 if found.held else 1


if __name__ == "__main__":
    sys.exit(main())
