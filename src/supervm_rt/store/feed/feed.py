"""A store's feed: any number of subscriptions, woken by commits.

Subscriptions read the store by themselves, through a few shared connections; those that have kept up share what was read once
(``tail``). Nothing is pushed to a consumer, so one that does not come back costs nothing.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

import trio

from supervm_rt.chain.cursor import MAX_CHAINS, Cursor, Sealer
from supervm_rt.errors import ConfigurationError, StoreError
from supervm_rt.model.chain import Step
from supervm_rt.store.database import Store
from supervm_rt.store.feed.bell import listen
from supervm_rt.store.feed.events import ALL_STEPS, BEGINNING, Last, RawRow, Request, Transactions
from supervm_rt.store.feed.log import log_head
from supervm_rt.store.feed.reader import FeedReader, Page
from supervm_rt.store.feed.subscription import Subscription
from supervm_rt.store.feed.tail import Tail

T = TypeVar("T")

READERS: Final = 2
"""Connections on which pages are read; further consumers wait for their turn."""
_COMMITS_REMEMBERED: Final = 10_000
_TRIES: Final = 5
_GROUP: Final = 16
_FREE: Final = 0.0002
"""Where waking took longer than this of the processor, it is followed by a rest. Seconds."""
_REST: Final = (49, 0.5)
"""Times as long as waking took, and at most so many seconds."""
_LONG_REST: Final = (99, 1.0)
"""The same after one that told so many events that the mirror catches up: who reads of the past can wait."""
_MANY: Final = 64


class Feed:
    """Made by ``open_feed``, or by a runtime for its own store. Used from one Trio loop; ``run`` has to run for it to live."""

    def __init__(self, store: Store, *, told: bool) -> None:
        """``store``: a handle of the feed's own, open read-only; the feed closes it. ``told``: ``ring`` says how many events."""
        self.path = store.path
        self._file = _identity(store.path)
        self._pump_store = store
        self._sealer = Sealer(store.cursor_key())
        self._idle: list[Store] = []
        self._turn = trio.CapacityLimiter(READERS)
        with store.snapshot() as connection:
            self.tail = Tail(log_head(connection))
        self.head = self.tail.head
        """Sequence of the log's last event, as far as this feed has heard."""
        self.rings = 0
        """How often something was heard of."""
        self.ended = False
        self._told = told
        self._doorbell = trio.Event()
        self._someone = trio.Event()
        self.waiting = trio.lowlevel.ParkingLot()
        """Consumers that have seen all there is."""
        self._failure: StoreError | None = None
        self._commits: deque[tuple[int, float]] = deque(maxlen=_COMMITS_REMEMBERED)

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, told: bool) -> Feed:
        """Opens the store. Raises StoreError as ``Store.open`` does."""
        store = Store.open(path, read_only=True)
        try:
            return cls(store, told=told)
        except BaseException:
            store.close()
            raise

    # ---- consumers -----------------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        chain: str | Sequence[str],
        *,
        cursor: str | None = None,
        start: str | int | Last = BEGINNING,
        steps: Iterable[Step] = ALL_STEPS,
        addresses: Sequence[str] = (),
        scripts: Sequence[bytes] = (),
        transactions: Sequence[bytes] = (),
        raw: bool = False,
        ir: bool = False,
        follow: bool = True,
    ) -> Subscription:
        """The events of one chain, or of several in the order in which the store committed them.

        ``cursor``: goes on behind the event that carried it. Else ``start`` says where to begin: ``"beginning"``; ``"now"``, with
        the next event; a height, with the blocks from there on (of one chain only); ``Last(n)``, with the last n events that are
        kept, of all these chains together. ``steps``: only these. ``addresses``, ``scripts`` (of outputs) and ``transactions``
        (ids): only blocks that hold one of these transactions, or one that pays to or spends from one of these addresses or
        scripts; the events list them. ``raw``, ``ir``: the blocks with the events.
        ``follow=False`` ends with what there is.

        Raises CursorMalformed, CursorForged, CursorTooNew, CursorOfAnotherStore, CursorOfAnotherChain and ConfigurationError at
        once; what the store has to be asked for, with the first event (see ``Subscription``).
        """
        chains = (chain,) if isinstance(chain, str) else tuple(chain)
        if len(chains) > MAX_CHAINS:
            raise ConfigurationError(f"{len(chains)} chains are too many", remedy=f"subscribe to {MAX_CHAINS} at most at once")
        begin: Cursor | str | int | Last = start if cursor is None else self._sealer.open(cursor)
        wanted = Transactions(addresses, scripts, transactions)
        filtered = bool(wanted.addresses or wanted.scripts or wanted.ids)
        request = Request(chains, begin, frozenset(steps), wanted if filtered else None, raw, ir)
        return Subscription(self, FeedReader(self._sealer, request), follow=follow, given=cursor)

    async def stored_chains(self, cursor: str | None = None) -> tuple[str, ...]:
        """What a subscription to all chains is of: the names of the chains that the store has now, whether they are fed or not;
        with a cursor, of those that it is of, since others may have come after it.

        They may be more than one subscription takes. Raises StoreError, and for a cursor what ``subscribe`` raises.
        """
        if cursor is not None:
            return tuple(place.chain for place in self._sealer.open(cursor).chains)
        async with self._turn:
            return await trio.to_thread.run_sync(self._asked, _names)

    async def read(self, reader: FeedReader) -> Page:
        """One page, in a thread."""
        async with self._turn:
            return await trio.to_thread.run_sync(self._asked, reader.read)

    def _asked(self, ask: Callable[[Store], T]) -> T:
        store = self._idle.pop() if self._idle else Store.open(self.path, read_only=True)
        try:
            for attempt in range(1, _TRIES + 1):
                try:
                    self._refuse_another_file()
                    return ask(store)
                except StoreError as error:
                    # A store that nobody wrote was read as unchanging, and then somebody began to write it.
                    if attempt == _TRIES or type(error) is not StoreError:
                        raise
            raise AssertionError
        finally:
            if self.ended:
                store.close()
            else:
                self._idle.append(store)

    def nothing_since(self, token: int, seen: int) -> bool:
        """Whether nothing was committed since ``rings`` was ``token``, and nothing is known behind ``seen``: then it is time to
        park in ``waiting``."""
        if self.rings == token and self.tail.head <= seen and not self.ended:
            self._someone.set()
            return True
        return False

    def over(self) -> bool:
        """Whether it has ended. Raises what it ended with."""
        if self._failure is not None:
            # With a traceback of its own: many consumers raise it.
            raise type(self._failure)(self._failure.message, remedy=self._failure.remedy) from self._failure
        return self.ended

    def committed_after(self, sequence: int) -> float | None:
        """When the first commit behind this sequence was heard of; the oldest that is remembered, where it is older still."""
        place = bisect.bisect_right(self._commits, sequence, key=itemgetter(0))
        return self._commits[place][1] if place < len(self._commits) else None

    # ---- commits -------------------------------------------------------------------------------------------------------------

    def ring(self, events: int | None = None) -> None:
        """Something was committed: ``events`` entries of the log, or it is not known how many, or whether any."""
        if events == 0:
            return
        self.rings += 1
        if events is not None:
            self._hear(self.head + events)
        self._doorbell.set()

    def _hear(self, head: int) -> None:
        if head > self.head:
            self.head = head
            self._commits.append((head, time.time()))

    async def run(self) -> None:
        """Wakes consumers. Runs until cancelled, then ends all subscriptions; ends by itself only with the store's failure."""
        try:
            while True:
                await self._doorbell.wait()
                # Nothing is read for nobody; how far the log is, is known without.
                while self._told and not len(self.waiting):
                    self._someone = trio.Event()
                    await self._someone.wait()
                self._doorbell = trio.Event()
                await self._pump()
        except StoreError as error:
            self._failure = error
        finally:
            self.ended = True
            self.waiting.unpark_all()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close)

    async def _pump(self) -> None:
        before = self.tail.head
        for attempt in range(1, _TRIES + 1):
            try:
                head, rows = await trio.to_thread.run_sync(self._fetch)
                break
            except StoreError as error:
                if attempt == _TRIES or type(error) is not StoreError:
                    raise
        self.tail.extend(head, rows)
        self._hear(head)
        if head != before:
            await self._wake(head - before)

    def _fetch(self) -> tuple[int, list[RawRow]]:
        self._refuse_another_file()
        return self.tail.fetch(self._pump_store)

    def _refuse_another_file(self) -> None:
        """The opened file can be read for as long as it is open; where it lies there no more, nobody writes it any more."""
        if _identity(self.path) != self._file:
            raise StoreError(
                f"the store {self.path} was replaced or moved away while it was read",
                remedy="open it again, by its new name if it has one",
            )

    async def _wake(self, events: int) -> None:
        """In groups, so that a thousand consumers do not keep a mirror waiting; and not again before a rest.

        Where commits follow fast, consumers then get more at once, and all of it takes about a fiftieth of the time, or less.
        """
        begun = time.thread_time()
        left = len(self.waiting)
        while left > 0:
            self.waiting.unpark(count=min(_GROUP, left))
            left -= _GROUP
            await trio.lowlevel.checkpoint()
        took = time.thread_time() - begun
        if took > _FREE:
            times, longest = _REST if events < _MANY else _LONG_REST
            await trio.sleep(min(times * took, longest))

    def _close(self) -> None:
        with contextlib.suppress(StoreError):
            self._pump_store.close()
        while self._idle:
            with contextlib.suppress(StoreError):
                self._idle.pop().close()


def _names(store: Store) -> tuple[str, ...]:
    return tuple(info.name for info in store.chains())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@asynccontextmanager
async def open_feed(path: str | os.PathLike[str]) -> AsyncGenerator[Feed, None]:
    """The feed of a store, without a node; another process may write it meanwhile, and its commits wake the subscriptions.

    Raises StoreError as ``Store.open`` does.
    """
    feed = await trio.to_thread.run_sync(partial(Feed.at, path, told=False))
    failed: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await nursery.start(partial(listen, feed.path, feed.ring))
        # What was committed before the bell was heard.
        feed.ring()
        try:
            yield feed
        except BaseException as error:  # raised again outside the nursery, so that it comes out bare
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
