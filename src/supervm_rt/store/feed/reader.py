"""Reads on from a cursor, a page at a time: from the log, and in place of deleted events from the blocks.

A page is read in one snapshot, which ends with it: a consumer that does not come back holds nothing of the store.

Where a chain's oldest events were deleted (``horizons``), a consumer that begins before them is first told what they led to:
NEW of each block up to the horizon's tip, FINAL of those that were final there. All of these are final for ever, so a consumer
that stops in between goes on however far the horizon has moved meanwhile; where the horizon's tip has come to lie lower, because
the chain was undone and redone, it is told UNDO down to there. Behind it follows the log.

A cursor in the log whose next events were deleted is refused, but for one at a block that was undone since, while an event tells
so (events of undone blocks may be kept for longer than those of final ones): its consumer is told UNDO back to the canonical
chain, and then goes on as one that began anew and had come that far.
"""

from __future__ import annotations

import heapq
import itertools
import operator
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from supervm_rt.chain.cursor import ChainPlace, Cursor, Sealer
from supervm_rt.errors import CursorOfAnotherChain, CursorTooOld, CursorUnknown, StoreCorrupt
from supervm_rt.ir.decode import decode_block
from supervm_rt.model.chain import BlockRef
from supervm_rt.model.ir import BlockIR
from supervm_rt.store.database import Store
from supervm_rt.store.faults import RESTORE, decoding
from supervm_rt.store.feed.events import CODE_OF, NOW, Body, Context, FeedEvent, Finals, Last, RawRow, Request
from supervm_rt.store.feed.log import (
    FINAL,
    LOG,
    NEW,
    UNDO,
    Horizon,
    canonical_blocks,
    crossing,
    final_at,
    horizon_of,
    log_head,
    state_of,
    undone_tip,
    way_down,
)
from supervm_rt.store.feed.matching import Matcher
from supervm_rt.store.feed.memory import memory_of
from supervm_rt.store.feed.tail import Group, Tail
from supervm_rt.store.queries import ChainReader, check_body
from supervm_rt.store.schema import StateCode

PAGE_EVENTS: Final = 256
PAGE_BYTES: Final = 4 << 20
"""A page of blocks ends with the block with which they take more memory than this."""
EXAMINED_BYTES: Final = 16 << 20
"""And where a filter drops them, with the block with which so many bytes were read."""


class Page(NamedTuple):
    """What was read at once."""

    events: list[FeedEvent]
    exhausted: bool
    """There was nothing more."""
    head: int
    """Sequence of the log's last event then."""


class FeedReader:
    """One consumer's place, moved on by reading. Used by one thread at a time, with any open handle of the same store."""

    def __init__(self, sealer: Sealer, request: Request) -> None:
        """Raises CursorOfAnotherChain where the cursor is not of exactly the chains that are asked for."""
        self.request = request
        self._sealer = sealer
        self._steps = frozenset(CODE_OF[step] for step in request.steps)
        self._started = False
        self._ids: tuple[int, ...] = ()
        self._index: dict[int, int] = {}
        self._matchers: list[Matcher] = []
        self._group: Group | None = None
        """Of all that stand in ``_context``; None: not asked for since that changed."""
        self._context = Context(sealer, tuple(map(ChainPlace, request.chains)), 0)
        self._finals: Finals = (None,) * len(request.chains)
        self._cursor = Cursor(0, self._context.places)
        self._last: FeedEvent | None = None
        """The last event that was passed, since its place was last set otherwise (``_cursor``)."""
        self._below: dict[bytes, BlockRef] = {}
        """What is left of a chain when a block that is not of the log is undone: its parent."""
        self.position = 0
        """Sequence of the last event that was passed."""
        self.seen = 0
        """Up to this sequence there is nothing more for this consumer."""
        if isinstance(request.start, Cursor):
            theirs = [place.chain for place in request.start.chains]
            if sorted(theirs) != sorted(request.chains):
                raise CursorOfAnotherChain(
                    f"the cursor is of {' and '.join(theirs)}, not of {' and '.join(request.chains)}",
                    remedy="subscribe to exactly these, or start without a cursor",
                )
            # In the order of the cursor, so that its index of a chain stays right.
            self._stand(request.start)
        elif isinstance(request.start, int):
            self._context = Context(sealer, (ChainPlace(request.chains[0], floor=request.start),), 0)
            self._cursor = Cursor(0, self._context.places)

    # ---- where it stands -----------------------------------------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """The place behind all that was read, told or not."""
        return self.seal(self.stands)

    @property
    def stands(self) -> Cursor | FeedEvent:
        """The same, to be sealed when it is asked for."""
        return self._cursor if self._last is None else self._last

    def seal(self, place: Cursor | FeedEvent) -> str:
        """The cursor of a place where it stood."""
        return self._sealer.seal(place.place() if isinstance(place, FeedEvent) else place)

    @property
    def started(self) -> bool:
        """Whether its first page was read: before, its place is not settled."""
        return self._started

    @property
    def follows_log(self) -> bool:
        """Whether the next events are those of the log."""
        return self._started and not self._context.catching_up

    def _stand(self, cursor: Cursor) -> None:
        self._cursor, self._last = cursor, None
        self.position = cursor.position
        # The last final blocks are in ``_finals``, so that consumers that stand at one place have one context.
        self._context = Context(self._sealer, tuple(replace(place, final=None) for place in cursor.chains), cursor.position)
        self._group = None
        self._finals = tuple(None if place.final is None else (place.final.hash, place.final.height) for place in cursor.chains)

    def _move(self, position: int, changed: Mapping[int, ChainPlace]) -> None:
        """Stands somewhere else, without an event that led there."""
        places = [
            replace(changed.get(index, place), final=changed[index].final if index in changed else _block(final))
            for index, (place, final) in enumerate(zip(self._context.places, self._finals, strict=True))
        ]
        self._stand(Cursor(position, tuple(places)))

    # ---- reading -------------------------------------------------------------------------------------------------------------

    def read(self, store: Store, limit: int = PAGE_EVENTS) -> Page:
        """The next events, at most ``limit``. Raises NotInStore, CursorTooOld, CursorUnknown, ConfigurationError, StoreError."""
        before = (self._started, self._context, self._finals, self._cursor, self._last, self.position, self.seen)
        try:
            with store.snapshot() as connection, decoding(store.path):
                return self._read(store, connection, limit)
        except BaseException:
            self._started, self._context, self._finals, self._cursor, self._last, self.position, self.seen = before
            self._group = None
            raise

    def _read(self, store: Store, connection: sqlite3.Connection, limit: int) -> Page:
        head = log_head(connection)
        if not self._started:
            self._start(store, connection, head)
        horizons = [horizon_of(connection, chain) for chain in self._ids]
        self._leave_deleted(connection, horizons)
        for index, horizon in enumerate(horizons):
            place = self._context.places[index]
            if not place.catching_up:
                continue
            _demand(horizon is not None, place.chain)
            assert horizon is not None
            rows = self._owed(connection, index, horizon, limit)
            if rows:
                return self._page(store, connection, rows, head, limit)
            done = replace(place, after=horizon.sequence, final=_block(self._finals[index]), catching_up=False, reached=None)
            self._move(self.position, {index: done})
        return self._page(store, connection, self._log(connection, limit), head, limit)

    def take(self, tail: Tail) -> list[FeedEvent]:
        """Goes on with a page of what was read once for all. Only without bodies, where it follows the log and the tail has all
        behind ``seen``."""
        group = self._group
        if group is None:
            group = self._group = tail.shared.group((self._ids, self._steps, self._context.places))
        key = (self.seen, group, self._finals)
        made = tail.shared.get(key)
        if made is None:
            rows, head = tail.after(self.seen, PAGE_EVENTS)
            index, places = self._index, self._context.places
            mine = [row for row in rows if row[1] in index]
            if any(place.after > self.position for place in places):
                mine = [row for row in mine if row[0] > places[index[row[1]]].after]
            events = self._pass_all(mine)
            self.seen = head
            tail.shared.keep(key, (events, self._finals, self._last if mine else None, self.position, head))
        else:
            events, self._finals, last, position, self.seen = made
            if last is not None:  # else nothing was passed, and each stays where it stands
                self._last, self.position = last, position
        return events

    def _page(self, store: Store, connection: sqlite3.Connection, rows: list[RawRow], head: int, limit: int) -> Page:
        if not self.request.bodies and self.follows_log:
            events = self._pass_all(rows)
            exhausted = len(rows) < limit
            self.seen = head if exhausted else self.position
            return Page(events, exhausted, head)
        events = []
        cache: dict[int, BlockIR] = {}
        held = examined = 0
        for number, row in enumerate(rows, start=1):
            event = self._pass(row)
            if event is None:
                continue
            if self.request.bodies:
                body, size = self._body(store, connection, event.index, row, cache)
                examined += size
                if body is not None:
                    # The place that is kept (``_last``) is without the block.
                    event = event.bare()
                    event.body = body
                    held += memory_of(body)
                    events.append(event)
                if (held > PAGE_BYTES or examined > EXAMINED_BYTES) and number < len(rows):
                    return Page(events, exhausted=False, head=head)
            else:
                events.append(event)
        exhausted = len(rows) < limit and self.follows_log
        self.seen = head if exhausted else self.position
        return Page(events, exhausted, head)

    def _pass_all(self, rows: list[RawRow]) -> list[FeedEvent]:
        """The same as ``_pass`` for rows of the log, without a call for each."""
        events: list[FeedEvent] = []
        if not rows:
            return events
        tell, index_of, steps, context, finals = events.append, self._index, self._steps, self._context, self._finals
        floors = [place.floor for place in context.places]
        alone, index = len(floors) == 1, 0
        for row in rows:
            if not alone:
                index = index_of[row[1]]
            if row[2] == FINAL:
                final = (row[4], row[5])
                finals = (final,) if alone else (*finals[:index], final, *finals[index + 1 :])
            if row[2] in steps and row[5] >= floors[index]:
                tell(FeedEvent(context, index, row, finals))
        last = rows[-1]
        self.position, self._finals = last[0], finals
        self._last = FeedEvent(context, index, last, finals)
        return events

    def _pass(self, row: RawRow) -> FeedEvent | None:
        """Moves behind a row. None: its event was not asked for."""
        index = self._index[row[1]]
        if row[2] == FINAL:
            finals = list(self._finals)
            finals[index] = (row[4], row[5])
            self._finals = tuple(finals)
        if row[0]:
            self.position = row[0]
        elif row[2] != FINAL:
            places = list(self._context.places)
            places[index] = replace(places[index], reached=BlockRef(row[4], row[5]) if row[2] == NEW else self._below[row[4]])
            self._context = Context(self._sealer, tuple(places), self.position)
            self._group = None
        event = FeedEvent(self._context, index, row, self._finals)
        self._last = event
        if row[2] not in self._steps or row[5] < self._context.places[index].floor:
            return None
        return event

    # ---- the log -------------------------------------------------------------------------------------------------------------

    def _log(self, connection: sqlite3.Connection, limit: int) -> list[RawRow]:
        after = max(self.position, self.seen)
        streams = [
            connection.execute(
                f"{LOG}e.chain = ? AND e.sequence > ? ORDER BY e.sequence LIMIT ?", (chain, max(after, place.after), limit)
            )
            for chain, place in zip(self._ids, self._context.places, strict=True)
        ]
        if len(streams) == 1:
            return streams[0].fetchall()
        merged = heapq.merge(*streams, key=operator.itemgetter(0))
        return [row for row, _ in zip(merged, range(limit), strict=False)]

    def _body(
        self, store: Store, connection: sqlite3.Connection, index: int, row: RawRow, cache: dict[int, BlockIR]
    ) -> tuple[Body | None, int]:
        """What was asked for of a block, or None where the filter does not let it through; and how many bytes were read."""
        request, hash_, body = self.request, row[4], Body()
        size = 0
        if request.ir or self._matchers:
            found = connection.execute("SELECT ir_checksum, ir FROM bodies WHERE block = ?", (row[3],)).fetchone()
            ir = check_body(store, hash_, *(found or (0, None)))
            size += len(ir)
            try:
                block = decode_block(ir)
            except ValueError as error:
                what = f"the IR of block {hash_.hex()} cannot be decoded ({error})"
                raise StoreCorrupt(f"the store {store.path} is damaged: {what}", remedy=RESTORE) from error
            if self._matchers:
                # By this page's handle: the next page may have another.
                chain = ChainReader(store, self._ids[index], self._context.places[index].chain)
                body.transactions = self._matchers[index].match(chain, ir, block, cache)
                if not body.transactions:
                    return None, size
            if request.ir:
                body.ir, body.encoded = block, ir
        if request.raw:
            found = connection.execute("SELECT raw_checksum, raw FROM bodies WHERE block = ?", (row[3],)).fetchone()
            body.raw = check_body(store, hash_, *(found or (0, None)))
            size += len(body.raw)
        return body, size

    def _leave_deleted(self, connection: sqlite3.Connection, horizons: list[Horizon | None]) -> None:
        """Where the next events of a chain were deleted: to the way back from an undone block, or CursorTooOld."""
        changed = {}
        for index, (place, horizon) in enumerate(zip(self._context.places, horizons, strict=True)):
            stands = max(self.position, place.after)
            if horizon is None or place.catching_up or stands >= horizon.sequence:
                continue
            tip = undone_tip(connection, self._ids[index], stands)
            if tip is None:
                oldest = self._oldest(horizons)
                raise CursorTooOld(
                    f"events of the chain {place.chain} behind the cursor were deleted: the store keeps those after the block "
                    f"{horizon.tip.hash.hex()} at height {horizon.tip.height}",
                    remedy=f"start anew from the beginning or a height; the oldest cursor that works is {oldest}",
                    oldest=oldest,
                )
            changed[index] = replace(place, final=_block(self._finals[index]), catching_up=True, reached=tip)
        if changed:
            self._move(self.position, changed)

    def _oldest(self, horizons: list[Horizon | None]) -> str:
        places = tuple(
            replace(place, after=0, final=None, catching_up=False, reached=None)
            if horizon is None
            else replace(place, after=horizon.sequence, final=horizon.final, catching_up=False, reached=None)
            for place, horizon in zip(self._context.places, horizons, strict=True)
        )
        return self._sealer.seal(Cursor(0, places))

    # ---- what deleted events led to ------------------------------------------------------------------------------------------

    def _owed(self, connection: sqlite3.Connection, index: int, horizon: Horizon, limit: int) -> list[RawRow]:
        """In place of deleted events: UNDO of what the consumer has and the horizon's chain had not; FINAL of what it has and was
        final at the horizon; then NEW and FINAL upwards."""
        chain, place, final = self._ids[index], self._context.places[index], self._finals[index]
        undone = way_down(connection, chain, place.reached, horizon.tip.height, max(1, limit))
        if undone:
            self._below = {block[1]: BlockRef(block[3], below) for block, below in undone}
            return [(0, chain, UNDO, *block, None) for block, _ in undone]
        reached = -1 if place.reached is None else place.reached.height
        settled = -1 if horizon.final is None else horizon.final.height
        owed = max(-1 if final is None else final[1], place.floor - 1) + 1
        if owed <= min(reached, settled):
            blocks = canonical_blocks(connection, chain, owed, min(reached, settled), limit)
            return [(0, chain, FINAL, *block, None) for block in blocks]
        rows: list[RawRow] = []
        for block in canonical_blocks(connection, chain, max(reached + 1, place.floor), horizon.tip.height, max(1, limit // 2)):
            rows.append((0, chain, NEW, *block, None))
            if block[2] <= settled:
                rows.append((0, chain, FINAL, *block, None))
        return rows

    # ---- starting ------------------------------------------------------------------------------------------------------------

    def _start(self, store: Store, connection: sqlite3.Connection, head: int) -> None:
        names = [place.chain for place in self._context.places]
        readers = [store.chain(name) for name in names]
        self._ids = tuple(reader.id for reader in readers)
        self._index = {chain: index for index, chain in enumerate(self._ids)}
        wanted = self.request.transactions
        if wanted is not None:
            self._matchers = [Matcher(reader, wanted) for reader in readers]
        start = self.request.start
        if isinstance(start, Cursor):
            self._check(connection, start, head)
        elif isinstance(start, Last):
            self._begin_late(connection, start.events)
        elif start == NOW:
            self._begin_now(readers, head)
        else:
            self._begin(connection, head, start if isinstance(start, int) else None)
        self._started = True

    def _begin(self, connection: sqlite3.Connection, head: int, height: int | None) -> None:
        changed = {}
        for index, (chain, place) in enumerate(zip(self._ids, self._context.places, strict=True)):
            horizon = horizon_of(connection, chain)
            if horizon is not None and (height is None or height <= horizon.tip.height):
                changed[index] = replace(place, catching_up=True)
            elif height is not None:
                after = crossing(connection, chain, height, 0 if horizon is None else horizon.sequence, head)
                final = final_at(connection, chain, after) or (None if horizon is None else horizon.final)
                changed[index] = replace(place, after=after, final=final)
        self._move(0, changed)

    def _begin_late(self, connection: sqlite3.Connection, events: int) -> None:
        streams = [
            connection.execute("SELECT sequence FROM events WHERE chain = ? ORDER BY sequence DESC", (chain,))
            for chain in self._ids
        ]
        newest_first = heapq.merge(*streams, key=operator.itemgetter(0), reverse=True)
        (before,) = next(itertools.islice(newest_first, events, None), (0,))
        for stream in streams:
            stream.close()
        changed = {}
        for index, (chain, place) in enumerate(zip(self._ids, self._context.places, strict=True)):
            horizon = horizon_of(connection, chain)
            after = max(before, 0 if horizon is None else horizon.sequence)
            final = final_at(connection, chain, after) or (None if horizon is None else horizon.final)
            changed[index] = replace(place, after=after, final=final)
        self._move(0, changed)

    def _begin_now(self, readers: list[ChainReader], head: int) -> None:
        places = zip(self._context.places, readers, strict=True)
        self._move(head, {index: replace(place, final=reader.final()) for index, (place, reader) in enumerate(places)})

    def _check(self, connection: sqlite3.Connection, cursor: Cursor, head: int) -> None:
        """That the store is the one, and no older copy of the one, that gave the cursor."""
        for index, place in enumerate(cursor.chains):
            if place.final is not None:
                _demand(state_of(connection, self._ids[index], place.final) == StateCode.CANONICAL, place.chain)
            if place.reached is not None:
                _demand(state_of(connection, self._ids[index], place.reached) is not None, place.chain)
        place = cursor.chains[cursor.chain]
        _demand(cursor.position <= head and all(one.after <= head for one in cursor.chains), place.chain)
        if cursor.block is None or place.catching_up:
            return
        row = connection.execute(
            "SELECT e.chain, e.step, b.hash FROM events e JOIN blocks b ON b.id = e.block WHERE e.sequence = ?",
            (cursor.position,),
        ).fetchone()
        if row is None:  # deleted: whether the next ones are there is asked with each page
            horizon = horizon_of(connection, self._ids[cursor.chain])
            _demand(horizon is not None and cursor.position <= max(horizon.sequence, place.after), place.chain)
            return
        step = None if cursor.step is None else CODE_OF[cursor.step]
        _demand(row == (self._ids[cursor.chain], step, cursor.block.hash), place.chain)


def _demand(known: bool, chain: str) -> None:
    if not known:
        raise CursorUnknown(
            f"the cursor names an event of the chain {chain} that this store does not have: the store is an older "
            "copy of the one that gave it",
            remedy="wait until it is as far, put the newer store back, or start anew",
        )


def _block(final: tuple[bytes, int] | None) -> BlockRef | None:
    return None if final is None else BlockRef(*final)
