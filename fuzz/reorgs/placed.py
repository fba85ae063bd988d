"""Invariant: what plugins say is mirrored as the plain model has it, in whichever way they come: in the host's process, in a
sandboxed child, or over gRPC; wherever the host leaves meanwhile or is killed, and however often it comes back.

A story of ``fuzz.reorgs.world`` is told by real plugins, one for each chain, to a real runtime. What they say up to the next
comparison, reopening or change of plugin is one chapter. The host opens, hears it to its end, and closes; then the store is
compared. Where the story reopens the store and something is lost, the host leaves in the middle of the chapter, or its files are
copied between two of its commits and it goes on with the copy, as one that was killed would; then it comes back, and the plugins
go on from the position that it gives. They refuse a position that no statement of theirs had.

What a store's own interface can say and a plugin cannot is left out: slot holes (a mirror's rule that no configuration sets),
weights beyond 32 bytes, positions of statements of finality (the C ABI has none), statements without a position (they would be
said again, and a block that is said again moves a chain of mode follow). Batches are what the transport makes of them, of at most
``MOST_FRAMES`` frames. Consumers read the store whoever fills it, and are left to the machine itself, and so is the single
verdict: here the rejections of an undisturbed chapter are compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import trio

import supervm_rt
from fuzz.reorgs.choices import Choices
from fuzz.reorgs.expected import Expected
from fuzz.reorgs.feed import OpaqueFeed, Said
from fuzz.reorgs.situations import FOLLOWER_SITUATIONS, SITUATIONS
from fuzz.reorgs.telling import VERSION, WEIGHT_BYTES, Statement, statement, teller, time_of, write_plugin, write_story
from fuzz.reorgs.world import Chain, Divergence, World, same
from supervm_rt import EventKind, HostEvent, PluginConfig, PolicyLevel, RestartPolicy, Runtime, RuntimeConfig, Store, sdk
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import RawBlock
from supervm_rt.store import BlockInput, FinalInput, digest
from supervm_rt.transports.native import in_process
from supervm_rt.transports.native.child import transport as child
from supervm_rt.transports.remote import transport as remote
from supervm_rt.transports.remote.addresses import UnixAddress
from tests.chain.model import Answer

WAYS = ("in-process", "child", "grpc")
MOST_FRAMES = 4
"""Frames taken at once, so that there are many commits between which the host can leave."""
SECONDS = 100.0
POLL = 0.0005
LEFT_OUT = {
    "holes",
    "malformed blocks",
    "consumers that went on where events were deleted",
    "consumers that came too late",
    *FOLLOWER_SITUATIONS,
}
PLACED_SITUATIONS = (*(name for name in SITUATIONS if name not in LEFT_OUT), "hosts that left in the middle")
"""What a campaign has to meet."""
NO_REJECTION = {"accepted", "orphan", "duplicate"}


class PlacedWorld(World):
    """A world whose chains are told by plugins. ``way``: one of WAYS."""

    def __init__(self, setup: bytes, way: str) -> None:
        self._way = way
        # A sandbox shows nothing of /dev, where the store may be.
        self._plugins = Path(tempfile.mkdtemp(prefix="supervm-tellers-"))
        self._statements: dict[str, list[Statement]] = {}
        self._begin: dict[str, bytes] = {}
        self._answers: dict[str, list[Answer]] = {}
        self._rejected: dict[str, Counter[str]] = {}
        super().__init__(setup)
        for chain in self.chains:
            folder = self._plugins / chain.name
            write_plugin(folder, chain.expected.family, remote=way == "grpc", sandbox=way == "child")
            self._turn(chain)

    def close(self) -> None:
        """Removes the store and the plugins."""
        super().close()
        shutil.rmtree(self._plugins)

    def _make_chains(self, choices: Choices) -> list[Chain]:
        chains = super()._make_chains(choices)
        for chain in chains:
            chain.plugins = tuple(f"{plugin}.{chain.name}" for plugin in chain.plugins)
            chain.plugin = chain.plugins[0]
            if isinstance(chain.feed, OpaqueFeed):
                chain.feed.holes = False
                rules = replace(chain.expected.rules, holes=False)
                chain.expected = Expected(chain.expected.family, chain.expected.network, rules)
        return chains

    def _open(self) -> Store:
        return Store.open(self._path, durable=False)

    # ---- the steps -----------------------------------------------------------------------------------------------------------

    def other_plugin(self, choices: Choices) -> None:
        """Another plugin goes on with the same chain."""
        self._chapter()
        super().other_plugin(choices)
        for chain in self.chains:
            self._turn(chain)

    def reopen(self, choices: Choices) -> None:
        """The host closes, leaves in the middle, or is killed there; and it comes back."""
        how = choices.pick(("clean reopenings", "reopenings that lost batches", "crashes"))
        self.situations.counts[how] += 1
        for chain in self.chains:
            self._flush(chain)
            chain.lines.append({"restart": True})
        if how != "clean reopenings":
            self._play(share=choices.number(100) / 100, killed=how == "crashes")
        self._chapter(undisturbed=how == "clean reopenings")

    def consume(self, choices: Choices) -> None:
        """Left out."""

    def compare(self, choices: Choices) -> None:
        """Everything is told, and all of it compared."""
        self._chapter()

    # ---- saying --------------------------------------------------------------------------------------------------------------

    def _say(self, chain: Chain, said: Said, choices: Choices, *, at_once: bool = True) -> None:
        if isinstance(said.input, BlockInput) and said.candidate is not None and isinstance(chain.feed, OpaqueFeed):
            candidate = said.candidate
            if candidate.weight >= 1 << 8 * WEIGHT_BYTES:
                return
            # What tells two blocks of one id apart is in the payload, and the host's translator makes the IR.
            raw = said.raw + candidate.content
            block = DevTranslator().translate(
                RawBlock(
                    raw,
                    hash_=candidate.hash,
                    parent=candidate.parent,
                    height=candidate.height,
                    time=time_of(candidate.hash),
                    weight=candidate.weight,
                )
            )
            told = BlockInput(block, raw, final_height=candidate.final_height)
            said = replace(said, input=told, candidate=replace(candidate, content=block.content), raw=raw, ir=block.ir)
        super()._say(chain, said, choices, at_once=at_once)

    def _position(self, chain: Chain, said: Said, choices: Choices) -> bytes:
        return b"" if isinstance(said.input, FinalInput) else f"{chain.plugin} {chain.said}".encode()

    def _flush(self, chain: Chain) -> None:
        pending, chain.pending = chain.pending, []
        self._answers[chain.name] += self._tell_model(chain, pending)
        claims = isinstance(chain.feed, OpaqueFeed)
        self._statements[chain.name] += [statement(said, claims=claims) for said in pending]

    # ---- a chapter -----------------------------------------------------------------------------------------------------------

    def _turn(self, chain: Chain) -> None:
        """The next chapter begins."""
        self._statements[chain.name] = []
        self._answers[chain.name] = []
        self._begin[chain.name] = chain.expected.positions.get(chain.plugin, b"")

    def _chapter(self, *, undisturbed: bool = True) -> None:
        for chain in self.chains:
            self._flush(chain)
        self._play()
        for chain in self.chains:
            self._compare_chain(chain)
            same(chain, "digest", digest(self._store, chain.name).hex, chain.expected.digest())
            if undisturbed:
                same(chain, "rejections", self._rejected[chain.name], _rejections(self._answers[chain.name]))
            self._turn(chain)
        self.situations.counts["digests compared"] += len(self.chains)

    def _play(self, share: float | None = None, *, killed: bool = False) -> None:
        """Opens the host and lets the plugins tell the chapter; ``share``: it leaves when so much of it is committed."""
        self._store.close()
        self._rejected = {chain.name: Counter() for chain in self.chains}
        with _small_batches():
            trio.run(self._host, share, killed)
        self._store = self._open()

    async def _host(self, share: float | None, killed: bool) -> None:
        plugins = tuple(map(self._configuration, self.chains))
        socket = self._folder / "socket"
        config = RuntimeConfig(
            store=self._path,
            policy=PolicyLevel.DEV,
            plugins=plugins,
            ring_bytes=1 << 16,
            rejection_limit=1 << 30,
            listen=(UnixAddress(socket),) if self._way == "grpc" else (),
        )
        async with trio.open_nursery() as nursery:
            async with supervm_rt.open_runtime(config, receivers=(self._hear,)) as runtime:
                if self._way == "grpc":
                    for chain in self.chains:
                        nursery.start_soon(self._serve, chain, f"unix:{socket}")
                with trio.fail_after(SECONDS):
                    if share is None:
                        await runtime.wait_idle()
                    else:
                        await self._until(runtime, share)
                for status in runtime.plugins.values():
                    if status.failure is not None:
                        raise Divergence(f"{status.plugin}: {status.failure}")
                    if status.placement is not None:
                        self.situations.counts[f"told by plugins {status.placement}"] += 1
                if killed:
                    await self._copy(runtime)
            nursery.cancel_scope.cancel()

    def _configuration(self, chain: Chain) -> PluginConfig:
        story = self._plugins / f"{chain.name}.story"
        write_story(story, self._begin[chain.name], self._statements[chain.name])
        rules = chain.expected.rules
        return PluginConfig(
            path=self._plugins / chain.name,
            name=chain.plugin,
            chain=chain.name,
            mode=rules.mode,
            final_depth=rules.final_depth,
            orphan_limit=rules.orphan_limit,
            restart=RestartPolicy.NEVER,
            settings={"story": str(story), "network": chain.expected.network},
        )

    async def _serve(self, chain: Chain, address: str) -> None:
        produce = teller(self._begin[chain.name], self._statements[chain.name])
        await sdk.serve(produce, address, name=chain.plugin, version=VERSION, chain=chain.expected.family)

    async def _until(self, runtime: Runtime, share: float) -> None:
        """Until so much is committed; the moment is the machine's choice, and none is wrong."""
        payload = sum(len(each.payload) for statements in self._statements.values() for each in statements)
        while sum(summary.raw_bytes for summary in runtime.chains.values()) < share * payload:
            if all(status.idle or status.finished for status in runtime.plugins.values()):
                return
            await trio.sleep(POLL)
        idle = all(status.idle for status in runtime.plugins.values())
        self.situations.counts["hosts that left in the middle"] += not idle

    async def _copy(self, runtime: Runtime) -> None:
        """Goes on with a copy of the files as they lie there between two commits."""
        self._opened += 1
        copy = self._folder / f"world-{self._opened}.store"
        async with runtime.store_turn:
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{self._path}{suffix}", f"{copy}{suffix}")
        self._path = copy

    def _hear(self, event: HostEvent) -> None:
        if event.kind is EventKind.CHAIN_REJECTED:
            (chain,) = (chain for chain in self.chains if chain.plugin == event.plugin)
            self._rejected[chain.name][str(event.data["reason"])] += 1


def _rejections(answers: list[Answer]) -> Counter[str]:
    found: Counter[str] = Counter()
    for answer in answers:
        found[answer.verdict] += answer.verdict not in NO_REJECTION
        found["orphan-limit"] += len(answer.evicted)
        found["height"] += len(answer.refused)
    return +found


@contextmanager
def _small_batches() -> Iterator[None]:
    patches = [mock.patch.object(module, "MAX_FRAMES", MOST_FRAMES) for module in (in_process, child, remote)]
    with patches[0], patches[1], patches[2]:
        yield
