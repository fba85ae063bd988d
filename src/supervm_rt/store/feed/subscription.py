"""One consumer: an async iterator that reads on, and waits where there is nothing more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from supervm_rt.store.feed.events import FeedEvent
from supervm_rt.store.feed.reader import PAGE_EVENTS, FeedReader

if TYPE_CHECKING:
    from supervm_rt.store.feed.feed import Feed


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """How far a subscription is."""

    told: int
    """Events that the consumer was given."""
    buffered: int
    """Events that were read and not yet given: at most PAGE_EVENTS."""
    lag_events: int
    """Entries of the store's log (of all its chains) that the consumer has not passed, as of the last look at the log."""
    lag_seconds: float
    """How long ago the first of them was committed; 0 where there is none. Where that is long ago, at least so long."""


class Subscription(AsyncIterator[FeedEvent]):
    """Made by ``subscribe``. Used by one task at a time.

    It needs no closing: between two events it holds nothing but the rest of a page, at most 256 events (and of blocks, where they
    were asked for, 4 MiB and one block).
    """

    def __init__(self, feed: Feed, reader: FeedReader, *, follow: bool, given: str | None) -> None:
        """For ``Feed.subscribe``."""
        self._feed = feed
        self._reader = reader
        self._follow = follow
        self._buffer: list[FeedEvent] = []
        self._next = 0
        self._before: FeedEvent | None = None
        """The last event of the page before."""
        self._given = given
        self._told = 0
        """How many events the pages before had."""
        self._reading = False

    @property
    def cursor(self) -> str | None:
        """Goes on behind all that was given, and behind what the filter dropped since. None: nothing was read yet."""
        if self._next < len(self._buffer):
            last = self._buffer[self._next - 1] if self._next else self._before
            return self._given if last is None else last.cursor
        return self._reader.cursor if self._reader.started else self._given

    async def __anext__(self) -> FeedEvent:
        """The next event; waits for it. Ends where the feed has ended, or with the log where it is not to be followed.

        Raises CursorTooOld, also for a consumer that was slower than the store's retention; CursorUnknown; NotInStore;
        ConfigurationError for a filter that does not fit the chain; StoreError.
        """
        place = self._next
        if place == len(self._buffer):
            if not await self._more(wait=True):
                raise StopAsyncIteration
            place = 0
        self._next = place + 1
        return self._buffer[place]

    async def batch(self, *, wait: bool = True) -> list[FeedEvent]:
        """All events that are ready, one page at most, and at least one: waits for it. None: as where ``__anext__`` ends.

        ``wait=False``: none also where there is none yet.
        """
        if self._next == len(self._buffer) and not await self._more(wait=wait):
            return []
        events = self._buffer[self._next :]
        self._next = len(self._buffer)
        return events

    def statistics(self) -> SubscriptionStatistics:
        """Takes constant time."""
        buffered = len(self._buffer) - self._next
        passed = self._reader.seen
        committed: float | None = None
        if buffered:
            first = self._buffer[self._next]
            passed = (first.sequence or 1) - 1
            committed = first.committed
        behind = max(0, self._feed.head - passed)
        if committed is None and behind:
            committed = self._feed.committed_after(passed)
        lag = 0.0 if committed is None or not (buffered or behind) else max(0.0, time.time() - committed)
        return SubscriptionStatistics(self._told + self._next, buffered, behind, lag)

    async def _more(self, *, wait: bool) -> bool:
        """Reads the next page with an event. False: there is none, and there will be none or it is not waited for."""
        if self._reading:
            raise trio.BusyResourceError("another task reads this subscription")
        self._reading = True
        try:
            waited = False
            self._turn_page()
            while True:
                # What is committed from here on rings.
                token = self._feed.rings
                if self._feed.over():
                    return False
                exhausted = self._newest()
                if exhausted is None:
                    page = await self._feed.read(self._reader)
                    self._buffer, exhausted = page.events, page.exhausted
                if self._buffer:
                    if not waited:
                        await trio.lowlevel.checkpoint()
                    return True
                if exhausted:
                    if not (wait and self._follow):
                        return False
                    await self._feed.wait(token, self._reader.seen)
                    waited = True
        finally:
            self._reading = False

    def _turn_page(self) -> None:
        if self._buffer:
            self._before = self._buffer[-1]
            self._told += len(self._buffer)
            self._buffer, self._next = [], 0

    def _newest(self) -> bool | None:
        """Takes one page of what is read once for all. Whether there is nothing more; None: the store has to be read."""
        reader, tail = self._reader, self._feed.tail
        if not (self._follow and tail.covers(reader.seen) and reader.follows_log) or reader.request.bodies:
            return None
        if reader.seen < tail.head:
            self._buffer = reader.take(*tail.after(reader.seen, PAGE_EVENTS), tail.shared)
        return reader.seen == tail.head
