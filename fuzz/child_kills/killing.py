"""Mirrors the sample chain with the sandboxed plugin, whose process is killed again and again.

Invariant: whatever the frame at which it is killed, the store ends as the undisturbed one does; nothing is lost or doubled.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from unittest import mock

import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartLimits, RestartPolicy, RuntimeConfig
from supervm_rt.cli.demo import SAMPLE_CHAIN, shipped_plugin
from supervm_rt.model.chain import Step
from supervm_rt.store import Applied, Input, Mirror, digest
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
    in_transaction: int = 0
    """Those of them at which the transaction of these frames was open."""
    in_reorg: int = 0
    """Those of the uncommitted ones whose frames moved the chain to another branch."""
    inside: int = 0
    """Those within an open transaction, a reorg or both, each once."""
    causes: set[str] = field(default_factory=set)

    def add(self, other: Kills) -> None:
        """Adds what was done elsewhere."""
        self.done += other.done
        self.uncommitted += other.uncommitted
        self.in_transaction += other.in_transaction
        self.in_reorg += other.in_reorg
        self.inside += other.inside
        self.causes |= other.causes


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


class When(Enum):
    """At which moment a process is killed."""

    BEFORE = auto()
    """Before its frames are taken."""
    AFTER = auto()
    """Once some were taken."""
    OPEN = auto()
    """Within the transaction that writes them."""


class Killer:
    """Kills the process of a plugin at random frames."""

    def __init__(self, random: Random) -> None:
        self.kills = Kills()
        self._random = random
        self._victim: ChildTransport | None = None
        """Whom to kill within the next transaction."""
        self._killed: ChildTransport | None = None
        """Whom it killed last: nobody is killed twice."""
        self._counted: When | None = None
        """How the present life was killed; None: not yet, or its kill has been counted as one within a reorg."""
        self._aim()

    def _aim(self) -> None:
        self._left = self._random.randint(0, LONGEST_LIFE)
        self._when = self._random.choice(list(When))

    def around_receive(self, take: Callable[..., Received]) -> Callable[..., Received]:
        """ChildTransport.receive_rest, with kills."""

        def receive_rest(transport: ChildTransport, *, printed: bool = True) -> Received:
            if self._left <= 0 and self._when is When.BEFORE:
                self._kill(transport)
            received = take(transport, printed=printed)
            self._left -= len(received.frames)
            if self._left <= 0 and received.frames:
                if self._when is When.AFTER:
                    self._kill(transport)
                elif self._when is When.OPEN:
                    self._victim = transport
            return received

        return receive_rest

    def around_apply(self, apply: Callable[..., list[Applied]]) -> Callable[..., list[Applied]]:
        """Mirror._apply, which runs within a transaction, with kills."""

        def apply_in_transaction(
            mirror: Mirror, connection: sqlite3.Connection, plugin: str, inputs: Sequence[Input]
        ) -> list[Applied]:
            applied = apply(mirror, connection, plugin, inputs)
            victim, self._victim = self._victim, None
            if victim is not None:
                self._kill(victim)
            if self._counted is not None and any(event.step is Step.UNDO for one in applied for event in one.outcome.events):
                self.kills.in_reorg += 1
                self.kills.inside += self._counted is not When.OPEN
                self._counted = None
            return applied

        return apply_in_transaction

    def _kill(self, transport: ChildTransport) -> None:
        if transport is self._killed or transport._child is None or transport._child.process.poll() is not None:
            return
        self._killed = transport
        transport._child.process.send_signal(signal.SIGKILL)
        self.kills.done += 1
        self.kills.uncommitted += self._when is not When.BEFORE
        self.kills.in_transaction += self._when is When.OPEN
        self.kills.inside += self._when is When.OPEN
        self._counted = None if self._when is When.BEFORE else self._when
        self._aim()

    def watch(self, event: HostEvent) -> None:
        """A receiver of events."""
        if event.kind is EventKind.PLUGIN_FAILED:
            self.kills.causes.add(str(event.data["cause"]))
        elif event.kind is EventKind.PLUGIN_REGISTERED:
            self._counted = self._victim = None


def mirror_with_kills(store: Path, random: Random) -> Kills:
    """Mirrors, killing the plugin's process at random frames until it has come to its end."""
    killer = Killer(random)

    async def main() -> None:
        async with supervm_rt.open_runtime(configuration(store), receivers=(killer.watch,)) as runtime:
            with trio.fail_after(SECONDS):
                await runtime.wait_idle()
            (status,) = runtime.plugins.values()
            assert status.state is PluginState.RUNNING, status.failure

    fewer = mock.patch.object(child_transport, "MAX_FRAMES", MOST_FRAMES)
    taking = mock.patch.object(ChildTransport, "receive_rest", killer.around_receive(ChildTransport.receive_rest))
    with fewer, taking, mock.patch.object(Mirror, "_apply", killer.around_apply(Mirror._apply)):
        trio.run(main)
    return killer.kills
