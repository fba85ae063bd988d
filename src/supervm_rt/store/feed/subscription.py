"""One consumer: an async iterator that reads on, and waits where there is nothing more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from supervm_rt.chain.cursor import Cursor
from supervm_rt.store.feed._pages import Pages
from supervm_rt.store.feed.events import FeedEvent
from supervm_rt.store.feed.reader import FeedReader

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


class Subscription(Pages):
    """Made by ``subscribe``: an async iterator. Used by one task at a time.

    Going over it gives the next event, and waits for it. It ends where the feed has ended, or with the log where it is not to be
    followed. Raises CursorTooOld, also for a consumer that was slower than the store's retention; CursorUnknown; NotInStore;
    ConfigurationError for a filter that does not fit the chain; StoreError.

    It needs no closing: between two events it holds nothing but a page, at most 256 events (and of blocks, where they were asked
    for, as many as take 4 MiB of memory, and one more).
    """

    def __init__(self, feed: Feed, reader: FeedReader, *, follow: bool, given: str | None) -> None:
        """For ``Feed.subscribe``."""
        self._feed = feed
        self._reader = reader
        self._follow = follow
        self._shares = follow and not reader.request.bodies
        """Whether it goes on with what is read once for all, as soon as it has kept up."""
        self._before: FeedEvent | None = None
        """The last event of the page before."""
        self._given = given
        self._told = 0
        """How many events the pages before had."""
        self._reading = False
        self._fetching = False
        """Whether a thread moves the reader on, to a page that was not given yet."""
        self._stood: Cursor | FeedEvent | None = None
        """Where the reader stood before; None also before its first page."""

    @property
    def cursor(self) -> str | None:
        """Goes on behind all that was given, and behind what the filter dropped since. None: nothing was read yet."""
        if self._next < len(self._page):
            last = self._page[self._next - 1] if self._next else self._before
            return self._given if last is None else last.cursor
        if self._stood is not None:
            return self._reader.seal(self._stood)
        return self._reader.cursor if self._reader.started and not self._fetching else self._given

    async def _advance(self) -> FeedEvent:
        """The next event, where none is at hand."""
        if self._next == len(self._page) and not await self._more(wait=True):
            raise StopAsyncIteration
        place = self._next
        self._next = place + 1
        return self._page[place]

    async def batch(self, *, wait: bool = True) -> list[FeedEvent]:
        """All events that are ready, one page at most, and at least one: waits for it. None: as where ``__anext__`` ends.

        ``wait=False``: none also where there is none yet.
        """
        if self._next == len(self._page) and not await self._more(wait=wait):
            return []
        events = self._page[self._next :]
        self._next = len(self._page)
        return events

    def statistics(self) -> SubscriptionStatistics:
        """Takes constant time."""
        buffered = len(self._page) - self._next
        passed = self._reader.seen
        committed: float | None = None
        if buffered:
            first = self._page[self._next]
            passed = (first.sequence or 1) - 1
            committed = first.committed
        behind = max(0, self._feed.head - passed)
        if committed is None and behind:
            committed = self._feed.committed_after(passed)
        lag = 0.0 if committed is None or not (buffered or behind) else max(0.0, time.time() - committed)
        return SubscriptionStatistics(self._told + self._next, buffered, behind, lag)

    async def _more(self, *, wait: bool) -> bool:
        """Reads the next page with an event. False: there is none, and there will be none or it is not waited for.

        Lets others run where it reads the store or waits. What it takes of the newest events is soon at an end: there are no more
        before others have run.
        """
        if self._reading:
            raise trio.BusyResourceError("another task reads this subscription")
        self._reading = True
        feed = self._feed
        try:
            self._turn_page()
            while True:
                # What is committed from here on rings.
                token = feed.rings
                if feed.ended and feed.over():
                    return False
                exhausted = self._newest(wait=wait)
                if exhausted is None:
                    exhausted = await self._fetch()
                if self._page:
                    return True
                if exhausted:
                    if not (wait and self._follow):
                        return False
                    if feed.nothing_since(token, self._reader.seen):
                        await feed.waiting.park()
        finally:
            self._reading = False

    async def _fetch(self) -> bool:
        """Reads a page of the store. Whether there is nothing more."""
        reader = self._reader
        self._fetching, self._stood = True, reader.stands if reader.started else None
        try:
            page = await self._feed.read(reader)
            self._page = page.events
        finally:
            self._fetching, self._stood = False, None
        return page.exhausted

    def _turn_page(self) -> None:
        if self._page:
            self._before = self._page[-1].bare()
            self._told += len(self._page)
            self._page, self._next = [], 0

    def _newest(self, *, wait: bool) -> bool | None:
        """Takes one page of what is read once for all. Whether there is nothing more; None: the store has to be read."""
        reader, tail = self._reader, self._feed.tail
        if not (self._shares and tail.base <= reader.seen <= tail.head and reader.follows_log):
            return None
        if reader.seen < tail.head:
            self._page = reader.take(tail)
        elif not wait and self._feed.head > tail.head:
            return None  # it is read once for all when somebody waits, and this one does not
        return reader.seen == tail.head
