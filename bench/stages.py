"""The plugin and its ring alone: every frame is taken, looked at and dropped."""

from __future__ import annotations

import json
import time
from pathlib import Path

import trio

from supervm_rt import _abi
from supervm_rt.model.manifest import Capability
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.native.in_process import InProcessTransport


def read_all(plugin: Path, source: Path, ring_bytes: int, size: float) -> float:
    """MB/s from the files to frames whose payload was read."""
    (library,) = plugin.glob("*.so")
    return size / trio.run(_receive_all, library.read_bytes(), source, ring_bytes)


async def _receive_all(library: bytes, source: Path, ring_bytes: int) -> float:
    from _reading import read_frames

    transport = InProcessTransport(
        _abi.SealedLibrary(library),
        name="bench",
        generation=1,
        ring_bytes=ring_bytes,
        heartbeat=None,
        deadlines=Deadlines(),
    )
    await transport.load()
    settings = {"blocks_dir": str(source), "network": "regtest", "follow": False}
    transport.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=json.dumps(settings).encode(), position=None)
    await transport.init()
    begun = time.perf_counter()
    await transport.start()
    ended = False
    while not ended:
        frames = (await transport.receive()).frames
        ended = bool(frames) and frames[-1].kind == _abi.KIND_END_OF_INPUT
        read_frames(list(frames))
    elapsed = time.perf_counter() - begun
    del frames
    await transport.stop()
    await transport.unload()
    return elapsed
