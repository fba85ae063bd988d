"""The workload: ``supervm-rt mirror`` of the sample chain, its plugin included, in transactions of set sizes.

How many blocks a transaction takes otherwise depends on how fast the plugin's thread is; here the n-th call has to be the same in
every run. All else is as users have it, but for the bounds of the log and the cache: smaller ones, so that the log is copied into
the store and begun anew several times, and one transaction does not fit the cache.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from supervm_rt import _abi
from supervm_rt.cli.main import main
from supervm_rt.model.plugin import Registration
from supervm_rt.runtime import admission, chains
from supervm_rt.store import BlockInput, database, schema
from supervm_rt.transports.interface import Received
from supervm_rt.transports.native.in_process import InProcessTransport
from tests.crash.shim import ROOT

BLOCKS: Final = ROOT / "src/supervm_rt/demo/sample-chain/blocks"
CHAIN: Final = "bitcoin"
PLUGIN: Final = "org.supervm.bitcoin-blockfiles"
STORE: Final = "store.db"
SIZES: Final = (1, 12, 130, 40, 3, 60, 25, 50, 5)
"""Blocks of each transaction, over and over."""
LOG_PAGES: Final = 16
CACHE_PAGES: Final = 12

_OF_A_CHILD: Final = frozenset({"security", "folder", "read_paths", "resources", "storage", "complete"})

Told = Callable[[int], None]


class _Cut(InProcessTransport):
    """Hands out frames in the sizes that are set, once all of them have come. It stands in the place of a child's transport too:
    when a process of its own says something, no two runs agree."""

    sizes: Sequence[int] = SIZES

    def __init__(self, *arguments: object, **named: object) -> None:
        known = {name: value for name, value in named.items() if name not in _OF_A_CHILD}
        super().__init__(*arguments, **known)  # type: ignore[arg-type]
        self._held: list[_abi.Frame] = []
        self._batches: list[list[_abi.Frame]] = []

    def receive_rest(self) -> Received:
        if self._batches:
            return Received(frames=self._batches.pop(0))
        received = super().receive_rest()
        self._held += received.frames
        if self._held and self._held[-1].kind == _abi.KIND_END_OF_INPUT:
            number = 0
            while self._held:
                size = self.sizes[number % len(self.sizes)]
                batch, self._held = self._held[:size], self._held[size:]
                self._batches.append(batch)
                number += 1
        frames = self._batches.pop(0) if self._batches else ()
        return Received(frames=frames, messages=received.messages, shutdown=received.shutdown)


def prepare(told: Told | None, *, before: int = 0, sizes: Sequence[int] = SIZES) -> None:
    """Sets this process up for the workload. ``told`` gets the blocks stored so far, ``before`` included, once a batch is."""
    _Cut.sizes = sizes
    admission.InProcessTransport = admission.ChildTransport = _Cut  # type: ignore[assignment, attr-defined]
    database._LOG_BYTES = LOG_PAGES * schema.PAGE_SIZE  # type: ignore[misc]
    database._CACHE_KIBIBYTES = CACHE_PAGES * schema.PAGE_SIZE // 1024  # type: ignore[misc]
    if told is None:
        return
    real = chains.ChainPipeline.commit
    stored = before

    async def commit(self: chains.ChainPipeline, registration: Registration, batch: chains.Translated) -> chains.Ingested:
        nonlocal stored
        count = sum(isinstance(one, BlockInput) for one in batch.inputs)
        taken = await real(self, registration, batch)
        stored += count
        told(stored)
        return taken

    chains.ChainPipeline.commit = commit  # type: ignore[method-assign]


def arguments(folder: Path) -> list[str]:
    """Of the command line, for a store in this folder."""
    plugin = ROOT / "plugins/bitcoin-blockfiles"
    settings = ("--set", f"blocks_dir={BLOCKS}", "--set", "network=regtest")
    return [
        "mirror",
        "--plugin",
        str(plugin),
        *settings,
        "--policy",
        "dev",
        "--store",
        str(folder / STORE),
        "--until-idle",
        "--json",
    ]


def run(folder: Path) -> int:
    """Mirrors; returns the exit status."""
    return main(arguments(folder))


def output_to(path: Path) -> None:
    """Standard output and error of this process go to ``path`` with the endings .out and .err."""
    for descriptor, stream, ending in ((1, sys.stdout, ".out"), (2, sys.stderr, ".err")):
        stream.flush()
        file = os.open(path.with_suffix(ending), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
