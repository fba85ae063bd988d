"""gRPC beside grpcio: streams to a subscriber and blocks from a plugin, with the same proto and the same client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.building import ROOT, TARGET
from bench.measuring import Rate, Row, cpus, in_turns
from bench.peers.http2 import Client

SIZES = {300: "300 B", 64 << 10: "64 KiB", 1 << 20: "1 MB"}
BATCH = 128
VOLUME = 192 << 20
MOST_BLOCKS, MOST_BATCHED = 40_000, 320_000
TITLES = {"aio": "grpcio aio", "sync": "grpcio sync", "made": "of messages made beforehand"}
AIMS = {(300, False): 3.0, (300, True): 1.0, (64 << 10, True): 1.0, (1 << 20, False): 0.7, (1 << 20, True): 0.7}
"""By size and whether batched. At 64 KiB nothing is aimed at for single messages."""


def _messages() -> None:
    """Google's classes of the proto, for grpcio."""
    arguments = ["-I", str(ROOT / "proto"), f"--python_out={TARGET}", "plugin_host.proto", "ir.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, cwd=ROOT)


class Server:
    """One server in a process of its own, on the CPU of the consumer."""

    def __init__(self, kind: str, folder: Path, size: int, batch: int, cpu: int) -> None:
        path = folder / kind
        command = [sys.executable, "-m", "bench.peers.grpc_servers", kind, str(path), str(size), str(batch)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{TARGET}"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)
        os.sched_setaffinity(self.process.pid, {cpu})
        self.client = self._connect(path)

    @staticmethod
    def _connect(path: Path) -> Client:
        deadline = time.monotonic() + 30
        while True:
            try:
                return Client(path)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        """Ends it."""
        self.client.close()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _stream(server: Server, count: int, batch: int) -> float:
    from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto

    request = proto.StreamBlocksRequest(from_height=count, max_batch=batch if batch > 1 else 0)
    begun = time.perf_counter()
    call = server.client.begin("StreamBlocks")
    server.client.send(call, _framed(bytes(request)), end=True)
    received = server.client.finish()
    taken = time.perf_counter() - begun
    assert received > count * 100, received
    return count / taken


def _exchange(server: Server, messages: bytes, count: int, register: bytes) -> float:
    client = server.client
    call = client.begin("Register")
    client.send(call, _framed(register), end=True)
    client.finish()
    begun = time.perf_counter()
    call = client.begin("BlockExchange")
    client.send(call, messages, end=True)
    client.finish()
    return count / (time.perf_counter() - begun)


def _encoded(size: int, count: int, batch: int) -> bytes:
    """What a plugin sends: so many blocks, encoded."""
    from supervm_rt.sdk import messages

    blocks = [
        messages.block(
            "dev",
            bytes(size),
            height=number,
            hash=number.to_bytes(32, "big"),
            parent=bytes(32),
            position=b"",
            final_height=None,
            weight=None,
            time=None,
        )
        for number in range(1, count + 1)
    ]
    if batch > 1:
        blocks = [messages.batch(blocks[at : at + batch]) for at in range(0, count, batch)]
    return b"".join(map(_framed, blocks))


def small(quick: bool) -> Iterator[Row]:
    """The rows of 300 B."""
    return rows(quick, (300,))


def medium(quick: bool) -> Iterator[Row]:
    """The rows of 64 KiB."""
    return rows(quick, (64 << 10,))


def large(quick: bool) -> Iterator[Row]:
    """The rows of 1 MB."""
    return rows(quick, (1 << 20,))


def rows(quick: bool, sizes: Sequence[int]) -> Iterator[Row]:
    """Blocks a second, both ways, single and batched. Servers have the consumer's CPU, the client the producer's."""
    from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto

    _messages()
    allowed = os.sched_getaffinity(0)
    served, asking = cpus()
    os.sched_setaffinity(0, {asking})
    register = bytes(proto.RegisterRequest(name="bench", version="1.0.0", chain="dev", capabilities=["block_stream"]))
    try:
        for size in sizes:
            label = SIZES[size]
            for batched in (False, True):
                batch = min(BATCH, max(2, (8 << 20) // size)) if batched else 1
                count = max(min(VOLUME // size, MOST_BATCHED if batched else MOST_BLOCKS) // (8 if quick else 1), 16)
                count = (count + batch - 1) // batch * batch
                with tempfile.TemporaryDirectory(prefix="supervm-bench-") as name:
                    servers = {kind: Server(kind, Path(name), size, batch, served) for kind in ("ours", "aio", "sync", "made")}
                    try:
                        encoded = _encoded(size, count, batch)
                        streams: dict[str, Rate] = {
                            kind: partial(_stream, server, count, batch) for kind, server in servers.items()
                        }
                        exchanges: dict[str, Rate] = {
                            kind: partial(_exchange, server, encoded, count, register)
                            for kind, server in servers.items()
                            if kind != "made"
                        }
                        for what, runs in (("to a subscriber", streams), ("from a plugin", exchanges)):
                            found = in_turns(runs, 1 if quick else 5)
                            how = f"{batch} to a message" if batched else "single"
                            yield Row(
                                f"gRPC {what}, {label}, {how}",
                                found["ours"],
                                max(found["aio"], found["sync"]),
                                "blocks/s",
                                ", ".join(f"{TITLES[kind]} {rate:,.0f}" for kind, rate in found.items() if kind in TITLES),
                                AIMS.get((size, batched)),
                                {TITLES[kind]: rate for kind, rate in found.items() if kind in TITLES},
                            )
                    finally:
                        for server in servers.values():
                            server.close()
    finally:
        os.sched_setaffinity(0, allowed)
