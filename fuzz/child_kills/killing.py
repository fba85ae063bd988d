"""Mirrors the sample chain with the sandboxed plugin, whose process is killed again and again.

Invariant: whatever the frame at which it is killed, the store ends as the undisturbed one does; nothing is lost or doubled.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from unittest import mock

import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartLimits, RestartPolicy, RuntimeConfig
from supervm_rt.cli.demo import SAMPLE_CHAIN, shipped_plugin
from supervm_rt.store import digest
from supervm_rt.transports.native.child import transport as child_transport
from supervm_rt.transports.native.child.transport import ChildTransport

if TYPE_CHECKING:
    from supervm_rt.transports.interface import Received

CHAIN = "bitcoin"
LONGEST_LIFE = 24
"""Frames that one life may bring before it is killed."""
MOST_FRAMES = 4
"""Frames taken at once, so that there are many moments to be killed at."""
SECONDS = 100.0


@dataclass
class Kills:
    """What was done."""

    done: int = 0
    uncommitted: int = 0
    """Those at which frames were taken and not committed yet."""
    in_reorg: int = 0
    """Those of them whose frames moved the chain to another branch."""
    causes: set[str] = field(default_factory=set)


def configuration(store: Path) -> RuntimeConfig:
    """The sample chain, restarted whenever it fails."""
    plugin = PluginConfig(
        path=shipped_plugin("bitcoin-blockfiles"),
        restart=RestartPolicy.ON_FAILURE,
        settings={"blocks_dir": str(SAMPLE_CHAIN / "blocks"), "network": "regtest"},
    )
    limits = RestartLimits(first_delay=0.001, longest_delay=0.001, failures=100_000, window=1.0)
    return RuntimeConfig(store=store, policy=PolicyLevel.DEV, plugins=(plugin,), ring_bytes=1 << 16, restarts=limits)


def mirror(store: Path) -> str:
    """Mirrors without a disturbance; the digest."""

    async def main() -> None:
        async with supervm_rt.open_runtime(configuration(store)) as runtime:
            with trio.fail_after(SECONDS):
                await runtime.wait_idle()

    trio.run(main)
    return digest_of(store)


def digest_of(store: Path) -> str:
    """Of the chain in a store."""
    with supervm_rt.Store.open(store, read_only=True) as opened:
        return digest(opened, CHAIN).hex


def mirror_with_kills(store: Path, random: Random) -> Kills:
    """Mirrors, killing the plugin's process at random frames until it has come to its end."""
    kills = Kills()
    left = random.randint(0, LONGEST_LIFE)
    taken_at_kill = False
    take = ChildTransport.receive_rest

    def take_and_kill(self: ChildTransport, *, printed: bool = True) -> Received:
        nonlocal left, taken_at_kill
        before = random.random() < 0.3
        if before and left <= 0 and self._child is not None:
            kill(self, frames=0)
        received = take(self, printed=printed)
        left -= len(received.frames)
        if not before and left <= 0 and received.frames and self._child is not None:
            kill(self, frames=len(received.frames))
        return received

    def kill(self: ChildTransport, frames: int) -> None:
        nonlocal left, taken_at_kill
        assert self._child is not None
        if self._child.process.poll() is not None:
            return
        self._child.process.send_signal(signal.SIGKILL)
        kills.done += 1
        kills.uncommitted += frames > 0
        taken_at_kill = frames > 0
        left = random.randint(0, LONGEST_LIFE)

    def watch(event: HostEvent) -> None:
        nonlocal taken_at_kill
        if event.kind is EventKind.PLUGIN_FAILED:
            kills.causes.add(str(event.data["cause"]))
        elif event.kind is EventKind.CHAIN_REORG and taken_at_kill:
            kills.in_reorg += 1
        elif event.kind is EventKind.PLUGIN_REGISTERED:
            taken_at_kill = False

    async def main() -> None:
        async with supervm_rt.open_runtime(configuration(store), receivers=(watch,)) as runtime:
            with trio.fail_after(SECONDS):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            assert status.state is PluginState.RUNNING, status.failure

    fewer = mock.patch.object(child_transport, "MAX_FRAMES", MOST_FRAMES)
    with fewer, mock.patch.object(ChildTransport, "receive_rest", take_and_kill):
        trio.run(main)
    return kills
