"""Consumers of a world's store: they come, read a few events, lag, crash and go on from a cursor, and go.

What each was told must be what the model says: every event behind its beginning, once, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fuzz.reorgs.choices import Choices
from fuzz.reorgs.expected import Expected
from supervm_rt.chain.cursor import Sealer
from supervm_rt.errors import CursorTooOld
from supervm_rt.model.chain import Step
from supervm_rt.store import Store
from supervm_rt.store.feed.events import BEGINNING, NOW, FeedEvent, Request
from supervm_rt.store.feed.reader import FeedReader
from supervm_rt.store.feed.retention import Kept, Retention, Sweeper, find_horizons, move_horizon, sweep

MOST = 8
SETS = (("one",), ("one", "two", "bitcoin"), ("two",), ("bitcoin", "one"), ("bitcoin",))


@dataclass
class Consumer:
    """One of them."""

    chains: tuple[str, ...]
    reader: FeedReader
    start: str | int
    begun: Mapping[str, int]
    """How many events each chain had when it came, where it began with the next."""
    told: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    cursor: str | None = None
    places: list[tuple[Mapping[str, int], str]] = field(default_factory=list)
    """Where it was: how many events of each chain it had been told, and its cursor."""
    sequence: int = 0

    def take(self, events: Sequence[FeedEvent]) -> None:
        """Keeps what it was told."""
        for event in events:
            assert event.sequence is not None
            assert event.sequence > self.sequence, "events out of order"
            self.sequence = event.sequence
            self.told.setdefault(event.chain, []).append((str(event.step), event.block.hash))
            self.cursor = event.cursor
            self.places.append(({chain: len(told) for chain, told in self.told.items()}, event.cursor))

    def compare(self, expected: Mapping[str, Expected], *, complete: bool) -> None:
        """Raises AssertionError where it was told something else."""
        for chain in self.chains:
            model, told = expected[chain], self.told.get(chain, [])
            if isinstance(self.start, int):
                if complete:
                    _compare_known(model, told, self.start)
                continue
            log = model.events[self.begun[chain] :]
            assert told == (log if complete else log[: len(told)]), f"chain {chain}: a consumer was told {told!r}, not {log!r}"


def _compare_known(model: Expected, told: list[tuple[str, bytes]], height: int) -> None:
    """The blocks that a consumer from a height on knows are the canonical ones from there on."""
    known: list[bytes] = []
    final: list[bytes] = []
    for step, hash_ in told:
        if step == Step.NEW:
            known.append(hash_)
        elif step == Step.UNDO:
            assert known.pop() == hash_, "a block was undone that was not the tip"
            assert hash_ not in final, "a block was undone that was final"
        else:
            final.append(hash_)
    canonical = [hash_ for hash_ in model.model.canonical if model.model.height[hash_] >= height]
    assert known == canonical, f"from height {height} a consumer knows {known!r}, not {canonical!r}"
    assert final == canonical[: len(final)], f"from height {height} a consumer was told that {final!r} are final"


class Consumers:
    """All of a world."""

    def __init__(self) -> None:
        self._consumers: list[Consumer] = []

    def step(self, store: Store, expected: Mapping[str, Expected], choices: Choices) -> None:
        """One comes, goes, or reads."""
        action = choices.number(8)
        if action == 7 and len(self._consumers) > 1:
            self._consumers.pop(choices.number(len(self._consumers)))
            return
        if (action == 6 and len(self._consumers) < MOST) or not self._consumers:
            self._consumers.append(self._come(store, expected, choices))
            return
        consumer = choices.pick(self._consumers)
        page = consumer.reader.read(store, 1 + choices.number(9))
        if choices.seldom(3):  # it crashes, having taken some of them
            consumer.take(page.events[: choices.number(len(page.events) + 1)])
            self._resume(store, consumer)
        else:
            consumer.take(page.events)
        consumer.compare(expected, complete=False)

    def reopened(self, store: Store) -> None:
        """The host was started again: each goes on from its cursor."""
        for consumer in self._consumers:
            self._resume(store, consumer)

    def compare(self, store: Store, expected: Mapping[str, Expected]) -> None:
        """All read to the end."""
        for consumer in self._consumers:
            while True:
                page = consumer.reader.read(store, 7)
                consumer.take(page.events)
                if page.exhausted:
                    break
            consumer.compare(expected, complete=True)

    def after_deleting(
        self, store: Store, expected: Mapping[str, Expected], keep: int, undone: int, choices: Choices
    ) -> tuple[int, int]:
        """Deletes events, and has new consumers begin, and each go on from where it once was: it is told what leads to the
        canonical chain, or that it comes too late. How many went on, and how many came too late."""
        retention = Retention(Kept(0, keep), Kept(0, undone))
        moved = find_horizons(store, retention, now=4e9)
        for horizon in moved:
            move_horizon(store, horizon)
        sweeper = Sweeper(retention)
        while not choices.seldom(4) and (found := sweeper.find(store, 4e9, 1 + choices.number(20))):
            sweep(store, found)
        sealer = Sealer(store.cursor_key())
        for chain in expected:
            anew: list[tuple[str, bytes]] = []
            self._go_on(store, FeedReader(sealer, Request((chain,))), {chain: anew})
            _compare_known(expected[chain], anew, 0)
        back = refused = 0
        for consumer in self._consumers:
            if consumer.start == NOW or not consumer.places:
                continue
            counts, cursor = choices.pick(consumer.places)
            told = {chain: consumer.told.get(chain, [])[: counts.get(chain, 0)] for chain in consumer.chains}
            try:
                self._go_on(store, FeedReader(sealer, Request(consumer.chains, sealer.open(cursor))), told)
            except CursorTooOld:
                refused += 1
                continue
            back += bool(moved)
            for chain in consumer.chains:
                _compare_known(expected[chain], told[chain], consumer.start if isinstance(consumer.start, int) else 0)
        return back, refused

    def _go_on(self, store: Store, reader: FeedReader, told: dict[str, list[tuple[str, bytes]]]) -> None:
        while True:
            page = reader.read(store, 5)
            for event in page.events:
                told[event.chain].append((str(event.step), event.block.hash))
            if page.exhausted:
                return

    def _come(self, store: Store, expected: Mapping[str, Expected], choices: Choices) -> Consumer:
        chains = choices.pick(SETS)
        start: str | int = choices.pick((BEGINNING, BEGINNING, NOW))
        if len(chains) == 1 and choices.seldom(3):
            start = choices.number(30)
        reader = FeedReader(Sealer(store.cursor_key()), Request(chains, start))
        reader.read(store, 0)
        begun = {chain: len(expected[chain].events) if start == NOW else 0 for chain in chains}
        return Consumer(chains, reader, start, begun, cursor=reader.cursor)

    def _resume(self, store: Store, consumer: Consumer) -> None:
        assert consumer.cursor is not None
        sealer = Sealer(store.cursor_key())
        consumer.reader = FeedReader(sealer, Request(consumer.chains, sealer.open(consumer.cursor)))
