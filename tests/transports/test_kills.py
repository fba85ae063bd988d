"""However often a remote plugin or its connection dies, nothing is lost and nothing doubled (clauses T3, L2)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from unittest import mock

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginState
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.sdk import flavours
from supervm_rt.transports.interface import Received
from supervm_rt.transports.remote import transport as remote
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.transport import RemoteTransport
from tests.remote.support import short_folder
from tests.transports.kinds import EXAMPLES, KINDS, configuration, digest_of, mirrored, over_grpc

BLOCKS = SAMPLE_CHAIN / "blocks"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mirrored("child", tmp_path_factory.mktemp("undisturbed") / "store.db", BLOCKS)


class Killer:
    """Kills at random frames: before they are taken, or between their taking and their commit."""

    def __init__(self, seed: int, longest_life: int) -> None:
        self.random = Random(seed)
        self.longest_life = longest_life
        self.left = self.random.randint(0, longest_life)
        self.done = 0
        self.uncommitted = 0
        self.process: subprocess.Popen[bytes] | None = None

    def take(self, transport: RemoteTransport) -> Received:
        before = self.random.random() < 0.3
        if before and self.left <= 0:
            self.kill(transport, 0)
        received = TAKE(transport)
        self.left -= len(received.frames)
        if not before and self.left <= 0 and received.frames:
            self.kill(transport, len(received.frames))
        return received

    def kill(self, transport: RemoteTransport, frames: int) -> None:
        if transport.exchange is None or transport.exchange.ended.is_set():
            return
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
        else:
            transport.exchange.protocol.cut("the test cuts it")
        self.done += 1
        self.uncommitted += frames > 0
        self.left = self.random.randint(0, self.longest_life)


TAKE = RemoteTransport.receive_rest


def mirror_with_kills(store: Path, killer: Killer, *, processes: bool) -> list[HostEvent]:
    events: list[HostEvent] = []

    async def run_processes(address: str) -> None:
        while True:
            command = [sys.executable, str(EXAMPLES / "blockfiles.py"), address]
            killer.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - it takes a millisecond
            try:
                await trio.to_thread.run_sync(killer.process.wait, abandon_on_cancel=True)
            finally:
                killer.process.kill()
                killer.process.wait()

    async def main() -> None:
        with short_folder() as short:
            address = UnixAddress(short / "socket")
            config = configuration(KINDS["grpc"], store, BLOCKS, listen=(address,))
            async with supervm_rt.open_runtime(config, receivers=(events.append,)) as runtime, trio.open_nursery() as nursery:
                nursery.start_soon(run_processes if processes else over_grpc, str(address))
                with trio.fail_after(100):
                    await runtime.wait_idle()
                (status,) = runtime.plugins.values()
                assert status.state is PluginState.RUNNING, status.failure
                nursery.cancel_scope.cancel()

    def take(self: RemoteTransport) -> Received:
        return killer.take(self)

    fewer = mock.patch.object(remote, "MAX_FRAMES", 4)
    sooner = mock.patch.object(flavours, "FIRST_DELAY", 0.002)
    with fewer, sooner, mock.patch.object(RemoteTransport, "receive_rest", take):
        trio.run(main)
    return events


@pytest.mark.parametrize("seed", range(3))
def test_connections_are_cut(undisturbed: str, tmp_path: Path, seed: int) -> None:
    killer = Killer(seed, longest_life=24)
    events = mirror_with_kills(tmp_path / "store.db", killer, processes=False)
    assert killer.done >= 3, f"seed {seed}"
    assert killer.uncommitted >= 1
    assert {event.data["cause"] for event in events if event.kind is EventKind.PLUGIN_FAILED} == {"disconnect"}
    assert digest_of(tmp_path / "store.db") == undisturbed, f"seed {seed}"


def test_processes_are_killed(undisturbed: str, tmp_path: Path) -> None:
    killer = Killer(7, longest_life=160)
    mirror_with_kills(tmp_path / "store.db", killer, processes=True)
    assert killer.done >= 2
    assert digest_of(tmp_path / "store.db") == undisturbed
