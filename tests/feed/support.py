"""Consumers that rebuild a chain from what they are told, and notice what was missing, doubled or out of order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import NamedTuple, Protocol

from hypothesis import strategies as st

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
    return grown(
        count,
        back=lambda: min(int(random.expovariate(0.7)), 6),
        weight=lambda: random.randint(1, 3),
        late=lambda: random.random() < 0.1,
        comes=lambda: random.random() < 0.3,
    )


def grown(
    count: int, *, back: Callable[[], int], weight: Callable[[], int], late: Callable[[], bool], comes: Callable[[], bool]
) -> list[Input]:
    """Such a chain of ``count`` inputs, as it is chosen for each block: how many blocks before the newest its parent is, its
    weight, whether it is late; and for each input after it whether the first of the late ones comes."""
    tree = [("r", 0)]
    inputs: list[Input] = [block("r", "x", 0, transactions=["r"])]
    waiting: list[Input] = []
    while len(inputs) + len(waiting) < count:
        parent, height = tree[-1 - min(back(), len(tree) - 1)]
        name = f"{len(tree)}"
        tree.append((name, height + 1))
        made = block(name, parent, height + 1, weight=weight(), transactions=[name])
        (waiting if late() else inputs).append(made)
        if waiting and comes():
            inputs.append(waiting.pop(0))
    return [replace(one, position=str(number).encode()) for number, one in enumerate([*inputs, *waiting], start=1)]


class Drawn(NamedTuple):
    """What hypothesis has chosen for a chain: see ``grown``; used from the first on, and then again."""

    blocks: list[tuple[int, int, bool, bool]]

    def inputs(self, count: int) -> list[Input]:
        backs, weights, lates, comings = (itertools.cycle(choices) for choices in zip(*self.blocks, strict=True))
        return grown(
            count,
            back=lambda: next(backs),
            weight=lambda: next(weights),
            late=lambda: next(lates),
            comes=lambda: next(comings),
        )


def drawn_trees(blocks: int) -> st.SearchStrategy[Drawn]:
    """Trees of so many blocks, each of which is chosen."""
    backs = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    seldom = st.integers(0, 9).map(lambda number: number == 9)
    often = st.integers(0, 2).map(lambda number: number == 2)
    chosen = st.tuples(backs, st.integers(1, 3), seldom, often)
    return st.lists(chosen, min_size=blocks, max_size=blocks).map(Drawn)
