"""The ways in which a plugin can come. A further transport joins every test of this folder by one more entry of KINDS."""

from __future__ import annotations

import importlib.util
import shutil
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import trio

import supervm_rt
from supervm_rt import HostEvent, PluginConfig, PolicyLevel, RestartLimits, RestartPolicy, RuntimeConfig, Store, sdk
from supervm_rt.cli.demo import shipped_plugin
from supervm_rt.store import digest
from supervm_rt.transports.remote.addresses import UnixAddress
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
class Kind:
    """``folder``: makes the plugin's folder. ``beside``: the plugin, where the host does not start it. ``secure``: over TLS."""

    folder: Callable[[Path], Path]
    beside: Beside | None = None
    secure: bool = False


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


KINDS: dict[str, Kind] = {
    "in process": Kind(in_process),
    "child": Kind(lambda _: shipped_plugin("bitcoin-blockfiles")),
    "grpc": Kind(lambda _: EXAMPLES, over_grpc),
    "grpc over TLS": Kind(lambda _: EXAMPLES, over_grpc, secure=True),
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

    async def main() -> None:
        with short_folder() as short:
            config = configuration(way, store, blocks)
            context = None
            if way.secure:
                authority = Authority.make(short / "tls")
                config, context = replace(config, listen=(authority.address(),)), authority.client()
            elif way.beside is not None:
                config = replace(config, listen=(UnixAddress(short / "socket"),))
            async with (
                supervm_rt.open_runtime(config, receivers=(watch,) if watch else ()) as runtime,
                trio.open_nursery() as nursery,
            ):
                if way.beside is not None:
                    nursery.start_soon(way.beside, runtime.listening[0], context)
                with trio.fail_after(SECONDS):
                    await runtime.wait_idle()
                (status,) = runtime.plugins.values()
                assert status.idle, status.failure
                nursery.cancel_scope.cancel()

    trio.run(main)
    return digest_of(store)


def digest_of(store: Path) -> str:
    with Store.open(store, read_only=True) as opened:
        return digest(opened, "bitcoin").hex
