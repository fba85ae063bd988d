"""Consumers of a world's store that follow it through one feed, as those of a node do: woken by commits, sharing what is read.

The feed runs in a Trio loop of a thread of its own; the world goes on only where all that it looks at has come to rest, so that a
story is the same each time.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from fuzz.reorgs.choices import Choices
from fuzz.reorgs.expected import Expected
from fuzz.reorgs.subscribers import SETS
from supervm_rt.model.chain import Step
from supervm_rt.store.feed import BEGINNING, NOW, Feed, FeedEvent, Subscription

MOST = 8
STEPS = (tuple(Step), tuple(Step), (Step.NEW, Step.UNDO), (Step.FINAL,))
SECONDS = 60.0
"""After which a consumer that was not told of a commit will not be told."""
T = TypeVar("T")


class Loop:
    """A Trio loop in a thread of its own."""

    def __init__(self) -> None:
        running = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main, running), daemon=True, name="followers")
        self._thread.start()
        running.wait()

    async def _main(self, running: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._end = trio.Event()
        async with trio.open_nursery() as self.nursery:
            running.set()
            await self._end.wait()
            self.nursery.cancel_scope.cancel()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Runs it there and waits for it. Raises what it raises, and AssertionError where it takes too long."""

        async def limited() -> T:
            with trio.fail_after(SECONDS):
                return await function()

        try:
            return trio.from_thread.run(limited, trio_token=self._token)
        except trio.TooSlowError:
            raise AssertionError(f"a consumer was not told of a commit within {SECONDS:.0f} s") from None

    def soon(self, function: Callable[[], object]) -> None:
        """Runs it there in between; in order."""
        self._token.run_sync_soon(function)

    def close(self) -> None:
        """Ends all that runs there."""
        self.soon(self._end.set)
        self._thread.join()


@dataclass
class Follower:
    """One of them. What it holds is changed by its task while it reads, and by the world when that has come to rest."""

    chains: tuple[str, ...]
    steps: tuple[Step, ...]
    batches: bool
    """Whether it takes all that is ready at once, or event by event."""
    begun: Mapping[str, int]
    """How many events each chain had when it came, where it began with the next."""
    subscription: Subscription
    told: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    events: list[FeedEvent] = field(default_factory=list)
    """What it was given and has not taken yet."""
    cursor: str | None = None
    sequence: int = 0
    reading: trio.CancelScope | None = None
    """None: it does not read on; it is stuck, or lags."""
    stopped: trio.Event | None = None
    failure: Exception | None = None

    def log(self, expected: Mapping[str, Expected], chain: str) -> list[tuple[str, bytes]]:
        """What it is to be told of a chain."""
        return [event for event in expected[chain].events[self.begun[chain] :] if event[0] in self.steps]

    def owed(self, expected: Mapping[str, Expected]) -> int:
        """How many events it was not given yet."""
        given = sum(map(len, self.told.values())) + len(self.events)
        return sum(len(self.log(expected, chain)) for chain in self.chains) - given

    def take(self, count: int) -> None:
        """Keeps the first so many of what it was given, and where that leads; forgets the others."""
        taken = self.events[:count]
        if taken:
            self.cursor = taken[-1].cursor
        if count == len(self.events):
            self.cursor = self.subscription.cursor
        self.events = []
        for event in taken:
            assert event.sequence is not None
            assert event.sequence > self.sequence, "events out of order"
            self.sequence = event.sequence
            self.told.setdefault(event.chain, []).append((str(event.step), event.block.hash))

    def compare(self, expected: Mapping[str, Expected], *, complete: bool) -> None:
        """Raises AssertionError where it was told something else."""
        for chain in self.chains:
            log, told = self.log(expected, chain), self.told.get(chain, [])
            assert told == (log if complete else log[: len(told)]), f"chain {chain}: a follower was told {told!r}, not {log!r}"
        _rebuild(self, expected)


def _rebuild(follower: Follower, expected: Mapping[str, Expected]) -> None:
    """Where it has been told all of a chain from its beginning on, what it knows is the canonical chain."""
    for chain in follower.chains:
        told = follower.told.get(chain, [])
        if follower.begun[chain] or Step.NEW not in follower.steps or len(told) < len(follower.log(expected, chain)):
            continue
        known: list[bytes] = []
        for step, hash_ in told:
            if step == Step.NEW:
                known.append(hash_)
            elif step == Step.UNDO:
                assert known.pop() == hash_, "a block was undone that was not the tip"
        assert known == expected[chain].model.canonical, f"chain {chain}: a follower knows {known!r}"


class Followers:
    """All of a world."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []
        self._loop: Loop | None = None
        self._feed: Feed | None = None
        self._tasks: trio.Nursery | None = None
        self._ended: trio.Event | None = None
        self._moved: trio.lowlevel.ParkingLot | None = None
        """Where one waits for a consumer to be given more."""

    # ---- the world's side ----------------------------------------------------------------------------------------------------

    def step(self, path: Path, expected: Mapping[str, Expected], choices: Choices) -> str:
        """One comes, goes, lags, reads or crashes; which of it."""
        action = choices.number(8)
        if self._loop is None:
            self._loop = Loop()
        if self._feed is None:
            self._loop.run(partial(self._open, path))
        if action == 7 and len(self._followers) > 1:
            gone = self._followers.pop(choices.number(len(self._followers)))
            self._loop.run(partial(self._stop, gone))
            return "went"
        if (action >= 5 and len(self._followers) < MOST) or not self._followers:
            self._followers.append(self._come(expected, choices))
            return "came"
        follower = choices.pick(self._followers)
        self._settle([follower], expected)
        how = choices.number(4)
        if how == 0:
            self._loop.run(partial(self._stop if follower.reading else self._start, follower))
            said = "turned to lagging or back"
        elif how == 1:
            self._crash(follower, choices.number(len(follower.events) + 1))
            said = "went on from a cursor"
        else:
            if follower.reading is None:
                self._loop.run(partial(self._read, follower, min(follower.owed(expected), 1 + choices.number(9))))
            self._take(follower, len(follower.events))
            said = "read"
        follower.compare(expected, complete=False)
        return said

    def committed(self, events: int) -> None:
        """So many were added to the log."""
        if self._loop is not None and self._feed is not None:
            self._loop.soon(partial(self._feed.ring, events))

    def compare(self, expected: Mapping[str, Expected]) -> int:
        """All read to the end; and where each stands, nothing is left to be told. How many there are."""
        if self._loop is None or self._feed is None:
            return 0
        self._settle(self._followers, expected)
        for follower in self._followers:
            if follower.reading is None:
                self._loop.run(partial(self._read, follower, follower.owed(expected)))
            self._take(follower, len(follower.events))
            follower.compare(expected, complete=True)
            again = self._loop.run(partial(self._rest, follower))
            assert not again, f"behind the cursor of a follower that was told all there are {again!r}"
        return len(self._followers)

    def close_feed(self, expected: Mapping[str, Expected]) -> None:
        """The host ends: what each was given, it has taken."""
        if self._loop is None or self._feed is None:
            return
        self._settle(self._followers, expected)
        self._loop.run(self._close)
        for follower in self._followers:
            self._take(follower, len(follower.events))

    def open_feed(self, path: Path) -> None:
        """The host was started again: each goes on from its cursor."""
        if self._loop is None or not self._followers:
            return
        self._loop.run(partial(self._open, path))
        for follower in self._followers:
            self._resume(follower, reads=follower.reading is not None)

    def close(self) -> None:
        """The world ends."""
        if self._loop is not None:
            self._loop.run(self._close)
            self._loop.close()

    def _come(self, expected: Mapping[str, Expected], choices: Choices) -> Follower:
        assert self._loop is not None
        assert self._feed is not None
        chains = choices.pick(SETS)
        start = choices.pick((BEGINNING, NOW))
        steps = choices.pick(STEPS)
        begun = {chain: len(expected[chain].events) if start == NOW else 0 for chain in chains}
        subscription = self._feed.subscribe(chains, start=start, steps=steps)
        follower = Follower(chains, steps, choices.number(2) == 0, begun, subscription)
        # Where it begins is settled by its first look.
        self._loop.run(partial(self._look, follower))
        self._loop.run(partial(self._start, follower))
        return follower

    def _crash(self, follower: Follower, taken: int) -> None:
        assert self._loop is not None
        reads = follower.reading is not None
        self._loop.run(partial(self._stop, follower))
        self._take(follower, taken)
        self._resume(follower, reads=reads)

    def _resume(self, follower: Follower, *, reads: bool) -> None:
        assert self._loop is not None
        assert self._feed is not None
        follower.subscription = self._feed.subscribe(follower.chains, cursor=follower.cursor, steps=follower.steps)
        follower.reading = None
        if reads:
            self._loop.run(partial(self._start, follower))

    def _take(self, follower: Follower, count: int) -> None:
        """In the loop, since its task may be just about to look for more."""
        assert self._loop is not None

        async def take() -> None:
            follower.take(count)

        self._loop.run(take)

    def _settle(self, followers: Iterable[Follower], expected: Mapping[str, Expected]) -> None:
        """Until each of those that read has all."""
        assert self._loop is not None
        counts = [(one, len(one.events) + one.owed(expected)) for one in followers if one.reading is not None]
        self._loop.run(partial(self._wait, counts))

    # ---- in the loop ---------------------------------------------------------------------------------------------------------

    async def _open(self, path: Path) -> None:
        assert self._loop is not None
        self._feed = Feed.at(path, told=True)
        self._moved = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        await self._loop.nursery.start(self._live, self._feed, self._ended)

    async def _live(self, feed: Feed, ended: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as self._tasks:
                task_status.started()
                await feed.run()
        finally:
            ended.set()

    async def _close(self) -> None:
        if self._feed is None:
            return
        assert self._tasks is not None
        assert self._ended is not None
        self._tasks.cancel_scope.cancel()
        await self._ended.wait()
        self._feed = None

    async def _start(self, follower: Follower) -> None:
        assert self._tasks is not None
        await self._tasks.start(self._follow, follower)

    async def _stop(self, follower: Follower) -> None:
        if follower.reading is not None:
            assert follower.stopped is not None
            follower.reading.cancel()
            await follower.stopped.wait()
            follower.reading = None

    async def _follow(self, follower: Follower, task_status: trio.TaskStatus[None]) -> None:
        follower.stopped = trio.Event()
        with trio.CancelScope() as follower.reading:
            task_status.started()
            try:
                if follower.batches:
                    while events := await follower.subscription.batch():
                        self._give(follower, events)
                async for event in follower.subscription:
                    self._give(follower, [event])
            except Exception as error:
                follower.failure = error
                self._give(follower, [])
            finally:
                follower.stopped.set()

    def _give(self, follower: Follower, events: list[FeedEvent]) -> None:
        assert self._moved is not None
        follower.events += events
        self._moved.unpark_all()

    async def _wait(self, counts: list[tuple[Follower, int]]) -> None:
        assert self._moved is not None
        for follower, count in counts:
            while len(follower.events) < count and follower.failure is None:
                await self._moved.park()
            if follower.failure is not None:
                raise follower.failure

    async def _look(self, follower: Follower) -> None:
        follower.events += await follower.subscription.batch(wait=False)
        if not follower.events:  # else it begins with these again
            follower.cursor = follower.subscription.cursor

    async def _read(self, follower: Follower, count: int) -> None:
        for _ in range(count):
            follower.events.append(await anext(follower.subscription))

    async def _rest(self, follower: Follower) -> list[FeedEvent]:
        """What a new subscription with its cursor is told."""
        assert self._feed is not None
        cursor = follower.cursor
        return [one async for one in self._feed.subscribe(follower.chains, cursor=cursor, steps=follower.steps, follow=False)]
