"""The ways in which a plugin can come. A further transport joins every test of this folder by one more entry of KINDS."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

import supervm_rt
from fuzz.reorgs.telling import ID, VERSION, Statement, teller, write_plugin, write_story
from supervm_rt import HostEvent, PluginConfig, PolicyLevel, RestartLimits, RestartPolicy, RuntimeConfig, Store, sdk
from supervm_rt.cli.demo import shipped_plugin
from supervm_rt.store import digest
from supervm_rt.transports.native import in_process as native
from supervm_rt.transports.native.child import transport as child
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.transports.remote import transport as remote
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.transport import RemoteTransport
from tests.remote.certificates import Authority
from tests.remote.support import short_folder

EXAMPLES = Path(__file__).parents[2] / "examples" / "remote"
REMOTE = {"name": "org.example.blockfiles", "version": "1.0.0", "chain": "bitcoin"}
MAGIC = bytes.fromhex("fabfb5da")
SECONDS = 60.0
AT_ONCE = RestartLimits(first_delay=0.001, longest_delay=0.001, failures=100_000, window=1.0)

Beside = Callable[[str, ssl.SSLContext | None], Awaitable[None]]
"""What runs beside the node, with its address and, over TCP, what it connects with."""


@dataclass(frozen=True)
class Death:
    """Something of a plugin's that can die and leave the host alive."""

    kill: Callable[[Any], bool]
    """Kills what is behind a transport, which it is given. False: there is nothing to be killed any more."""
    cause: str
    """Of the failure that the host tells."""
    beside: Beside | None = None
    """The plugin, where another one than the kind's own dies so."""


@dataclass(frozen=True)
class Kind:
    """One way."""

    folder: Callable[[Path], Path]
    """Makes the folder of the plugin that reads block files."""
    transport: Any
    """The class of its transport."""
    module: ModuleType
    """The transport's, with how many frames it takes at once."""
    sandbox: bool = False
    """For the manifest of a plugin of this way."""
    beside: Beside | None = None
    """The plugin that reads block files, where the host does not start it."""
    secure: bool = False
    """Over mutual TLS."""
    deaths: Mapping[str, Death] = field(default_factory=dict)
    """Beside that of the host."""


def in_process(work: Path) -> Path:
    folder = work / "in-process"
    shutil.copytree(shipped_plugin("bitcoin-blockfiles"), folder)
    manifest = folder / "plugin.yaml"
    manifest.write_text(manifest.read_text().replace("sandbox: true", "sandbox: false"))
    return folder


@cache
def example() -> Any:
    """The example that reads block files, as a module."""
    spec = importlib.util.spec_from_file_location("blockfiles_example", EXAMPLES / "blockfiles.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def over_grpc(address: str, context: ssl.SSLContext | None = None) -> None:
    await sdk.serve(example().produce, address, ssl=context, **REMOTE)


def kill_child(transport: ChildTransport) -> bool:
    process = None if transport._child is None else transport._child.process
    if process is None or process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    return True


def cut_connection(transport: RemoteTransport) -> bool:
    if transport.exchange is None or transport.exchange.ended.is_set():
        return False
    transport.exchange.protocol.cut("the test cuts it")
    return True


class Programs:
    """The plugin over gRPC as a process of its own, which is started again when it has ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    async def beside(self, address: str, _context: ssl.SSLContext | None = None) -> None:
        while True:
            command = [sys.executable, str(EXAMPLES / "blockfiles.py"), address]
            self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - it takes a millisecond
            try:
                await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
            finally:
                self.process.kill()
                self.process.wait()

    def kill(self, transport: RemoteTransport) -> bool:
        process, exchange = self.process, transport.exchange
        if process is None or process.poll() is not None or exchange is None or exchange.ended.is_set():
            return False
        process.send_signal(signal.SIGKILL)
        return True


PROGRAMS = Programs()
KINDS: dict[str, Kind] = {
    "in process": Kind(in_process, native.InProcessTransport, native),
    "child": Kind(
        lambda _: shipped_plugin("bitcoin-blockfiles"),
        ChildTransport,
        child,
        sandbox=True,
        deaths={"process": Death(kill_child, "killed")},
    ),
    "grpc": Kind(
        lambda _: EXAMPLES,
        RemoteTransport,
        remote,
        beside=over_grpc,
        deaths={
            "connection": Death(cut_connection, "disconnect"),
            "process": Death(PROGRAMS.kill, "disconnect", PROGRAMS.beside),
        },
    ),
    "grpc over TLS": Kind(lambda _: EXAMPLES, RemoteTransport, remote, beside=over_grpc, secure=True),
}


def write_blocks(folder: Path, blocks: Iterable[bytes]) -> Path:
    """A folder of block files, as a node on regtest writes it."""
    folder.mkdir()
    with (folder / "blk00000.dat").open("wb") as file:
        for block in blocks:
            file.write(MAGIC + len(block).to_bytes(4, "little") + block)
    return folder


def configuration(kind: Kind, store: Path, blocks: Path, **more: Any) -> RuntimeConfig:
    plugin = PluginConfig(
        path=kind.folder(store.parent),
        restart=RestartPolicy.ON_FAILURE,
        settings={"blocks_dir": str(blocks), "network": "regtest"},
    )
    usual: dict[str, Any] = {"store": store, "policy": PolicyLevel.DEV, "plugins": (plugin,), "ring_bytes": 1 << 16}
    return RuntimeConfig(**{**usual, "restarts": AT_ONCE, **more})


def mirrored(kind: str, store: Path, blocks: Path, watch: Callable[[HostEvent], None] | None = None) -> str:
    """The digest of what a plugin of this kind brings."""
    way = KINDS[kind]
    run(configuration(way, store, blocks), way.beside, watch, secure=way.secure)
    return digest_of(store)


def told(kind: str, store: Path, statements: Sequence[Statement]) -> str:
    """The digest of what a plugin of this kind says, about blocks of the family dev."""
    way = KINDS[kind]
    remote = way.beside is not None
    # A sandbox shows nothing of /dev, where the store may be.
    with short_folder() as folder:
        write_story(folder / "story", b"", statements)
        plugin = PluginConfig(
            path=write_plugin(folder / "plugin", "dev", remote=remote, sandbox=way.sandbox),
            settings={"story": str(folder / "story")},
        )
        produce = teller(b"", statements)

        async def serve(address: str, context: ssl.SSLContext | None) -> None:
            await sdk.serve(produce, address, ssl=context, name=ID, version=VERSION, chain="dev")

        config = RuntimeConfig(store=store, policy=PolicyLevel.DEV, plugins=(plugin,))
        run(config, serve if remote else None, secure=way.secure)
    return digest_of(store, "dev")


def run(
    config: RuntimeConfig, beside: Beside | None, watch: Callable[[HostEvent], None] | None = None, *, secure: bool = False
) -> None:
    """Until the one plugin has said all."""

    async def main() -> None:
        nonlocal config
        with short_folder() as short:
            context = None
            if secure:
                authority = Authority.make(short / "tls")
                config, context = replace(config, listen=(authority.address(),)), authority.client()
            elif beside is not None:
                config = replace(config, listen=(UnixAddress(short / "socket"),))
            async with (
                supervm_rt.open_runtime(config, receivers=(watch,) if watch else ()) as runtime,
                trio.open_nursery() as nursery,
            ):
                if beside is not None:
                    nursery.start_soon(beside, runtime.listening[0], context)
                with trio.fail_after(SECONDS):
                    await runtime.wait_idle()
                (status,) = runtime.plugins.values()
                assert status.idle, status.failure
                nursery.cancel_scope.cancel()

    trio.run(main)


def digest_of(store: Path, chain: str = "bitcoin") -> str:
    with Store.open(store, read_only=True) as opened:
        return digest(opened, chain).hex
