"""The host, killed and started again at any moment while a plugin streams the sample chain.

``python -m tests.transports.killed FOLDER KIND SEED``: ``KIND`` is one of ``kinds.KINDS``. A life of the host ends with SIGKILL
at a random frame: before frames are taken, between their taking and their commit, or somewhere behind. A plugin in its process
ends with it, one in a child is ended, and one over gRPC lives on and has to come back. When a life has come to the end of the
chain, the last line printed says how many were killed, and the chain's digest.

The hosts are forks of this process, which has all that they need loaded and no thread, so that a life costs little.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

# What a host that listens, and a plugin over gRPC, would load in each life anew.
import trio
import trio_asyncio  # noqa: F401

import supervm_rt
import supervm_rt.transports.remote.server
from supervm_rt import RuntimeConfig
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.sdk import flavours
from supervm_rt.transports.remote.addresses import UnixAddress
from tests.feed.killed import fork
from tests.remote.support import short_folder
from tests.transports.kinds import KINDS, SECONDS, Beside, Kind, configuration, digest_of

LONGEST_LIFE = 48
"""Frames that one life may take before it is killed."""
MOST_FRAMES = 4
"""Taken at once, so that there are many moments to be killed at."""
BEFORE, TAKEN, BEHIND = b"012"
"""Where a life ends: before frames are taken, between their taking and their commit, somewhere behind that."""
LONGEST_WAY = 0.004
"""Seconds that pass behind it at most."""


def live(way: Kind, config: RuntimeConfig, tell: int, left: int, where: int) -> None:
    """One life: tells when its moment has come, at which it stands still, or else goes on. Returns at the end of the chain."""
    receive_rest = way.transport.receive_rest

    def stand() -> None:
        os.write(tell, bytes([where]))
        while where != BEHIND:
            signal.pause()

    def take(transport: Any, **more: Any) -> Any:
        nonlocal left
        if left <= 0 and where == BEFORE:
            stand()
        received = receive_rest(transport, **more)
        due, left = left, left - len(received.frames)
        if left <= 0 < due + len(received.frames) and received.frames and where != BEFORE:
            stand()
        return received

    async def main() -> None:
        async with supervm_rt.open_runtime(config) as runtime:
            with trio.fail_after(SECONDS):
                await runtime.wait_idle()

    way.module.MAX_FRAMES = MOST_FRAMES  # type: ignore[attr-defined]
    way.transport.receive_rest = take
    trio.run(main)


def kill_hosts(way: Kind, config: RuntimeConfig, random: Random) -> dict[int, int]:
    """Until one comes to the end of the chain. How many were killed, by where."""
    kills = dict.fromkeys((BEFORE, TAKEN, BEHIND), 0)
    while True:
        told, tell = os.pipe()
        left, where = random.randint(0, LONGEST_LIFE), random.choice(tuple(kills))
        host = fork(partial(live, way, config, tell, left, where))
        os.close(tell)
        if moment := os.read(told, 1):
            if moment[0] == BEHIND:
                time.sleep(random.random() * LONGEST_WAY)
            os.kill(host, signal.SIGKILL)
        os.close(told)
        _, status = os.waitpid(host, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and moment:
            kills[moment[0]] += 1
        elif status == 0:
            return kills
        else:
            raise SystemExit(f"a host ended with status {status:#x}")


def serve(beside: Beside, address: str) -> None:
    flavours.FIRST_DELAY, flavours.LONGEST_DELAY = 0.002, 0.05
    trio.run(beside, address, None)


def main() -> None:
    folder, kind, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    way = KINDS[kind]
    with short_folder() as short:
        address = UnixAddress(short / "socket")
        listen = () if way.beside is None else (address,)
        config = configuration(way, folder / "store.db", SAMPLE_CHAIN / "blocks", listen=listen)
        plugin = None if way.beside is None else fork(partial(serve, way.beside, str(address)))
        try:
            kills = kill_hosts(way, config, Random(seed))
            if plugin is not None:
                # It has lived through all of them, and is told to stop by the last.
                status, plugin = os.waitpid(plugin, 0)[1], None
                assert status == 0, status
        finally:
            if plugin is not None:
                os.kill(plugin, signal.SIGKILL)
                os.waitpid(plugin, 0)
    print(f"killed {sum(kills.values())}, {kills[TAKEN]} of them with frames taken and not committed; ", end="")
    print(f"digest {digest_of(config.store)}")


if __name__ == "__main__":
    main()
