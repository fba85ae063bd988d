"""Consumers that rebuild a chain from what they are told, and notice what was missing, doubled or out of order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Protocol

from supervm_rt.chain.cursor import Sealer
from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.store import Input, Store
from supervm_rt.store.feed.events import BEGINNING, FeedEvent, Request
from supervm_rt.store.feed.reader import FeedReader, Page
from tests.store.support import CHAIN, block


class Event(Protocol):
    """What of an event tells the chain."""

    @property
    def step(self) -> Step: ...
    @property
    def block(self) -> BlockRef: ...
    @property
    def parent(self) -> bytes: ...


class Rebuilt:
    """The canonical chain as a consumer knows it: every event must fit what came before it."""

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self.blocks: list[tuple[bytes, int]] = []
        self.final = -1
        """Height of the last final block."""
        self.events = 0

    def apply(self, events: Iterable[Event]) -> None:
        for event in events:
            self.events += 1
            block = (event.block.hash, event.block.height)
            match event.step:
                case Step.NEW:
                    if self.blocks:
                        assert event.parent == self.blocks[-1][0], "a block was left out"
                    self.blocks.append(block)
                case Step.UNDO:
                    assert self.blocks.pop() == block, "what is undone is the tip"
                    assert block[1] > self.final, "what is final is never undone"
                case Step.FINAL:
                    above = [height for _, height in self.blocks if height > self.final]
                    assert block in self.blocks
                    assert block[1] == above[0], "blocks become final one after another"
                    self.final = block[1]

    def assert_equals(self, store: Store, chain: str = CHAIN) -> None:
        """The mirror's own chain."""
        reader = store.chain(chain)
        tip, final = reader.tip(), reader.final()
        canonical = []
        block = None if tip is None else reader.block_by_hash(tip.hash)
        while block is not None and block.height is not None and block.height >= self.floor:
            canonical.append((block.hash, block.height))
            block = reader.block_by_hash(block.parent)
        assert self.blocks == canonical[::-1]
        if final is not None and final.height >= self.floor:
            assert self.final == final.height


def consumer(
    store: Store, cursor: str | None = None, start: str | int = BEGINNING, chains: tuple[str, ...] = (CHAIN,)
) -> FeedReader:
    """A reader as ``Feed.subscribe`` makes it."""
    sealer = Sealer(store.cursor_key())
    return FeedReader(sealer, Request(chains, start if cursor is None else sealer.open(cursor)))


def read_all(reader: FeedReader, store: Store, limit: int = 256) -> list[FeedEvent]:
    """Page after page, to the end of the log."""
    events: list[FeedEvent] = []
    while True:
        page: Page = reader.read(store, limit)
        events += page.events
        if page.exhausted:
            return events


def log_of(store: Store, chain: str = CHAIN) -> list[tuple[int, Step, bytes]]:
    """The whole log, as the plain query gives it."""
    return [(event.sequence, event.step, event.block.hash) for event in store.chain(chain).events(limit=1_000_000)]


def told(events: Iterable[FeedEvent]) -> list[tuple[int | None, Step, bytes]]:
    """The same of events of a feed."""
    return [(event.sequence, event.step, event.block.hash) for event in events]


def busy_inputs(seed: int, count: int) -> list[Input]:
    """A chain that grows and reorgs often, a few blocks deep, with some blocks late by a few inputs."""
    random = Random(seed)
    tree = [("r", 0)]
    inputs: list[Input] = [block("r", "x", 0, transactions=["r"])]
    late: list[Input] = []
    while len(inputs) + len(late) < count:
        parent, height = tree[-1 - min(int(random.expovariate(0.7)), len(tree) - 1, 6)]
        name = f"{len(tree)}"
        tree.append((name, height + 1))
        made = block(name, parent, height + 1, weight=random.randint(1, 3), transactions=[name])
        if random.random() < 0.1:
            late.append(made)
        else:
            inputs.append(made)
        if late and random.random() < 0.3:
            inputs.append(late.pop(0))
    return [replace(one, position=str(number).encode()) for number, one in enumerate([*inputs, *late], start=1)]
