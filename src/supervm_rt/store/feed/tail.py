"""The last entries of the log, read once for all consumers that have kept up."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

from supervm_rt.chain.cursor import ChainPlace
from supervm_rt.store.database import Store
from supervm_rt.store.faults import decoding
from supervm_rt.store.feed.events import FeedEvent, Finals, RawRow
from supervm_rt.store.feed.log import LOG, log_head

TAIL_EVENTS: Final = 4096

_sequence = itemgetter(0)
_Wanted: TypeAlias = tuple[tuple[int, ...], frozenset[int], tuple[ChainPlace, ...]]


class Group:
    """Stands for what its consumers have in common: chains, steps and where they began. There is one of each, so it is compared
    and hashed as fast as a pointer."""

    __slots__ = ("__weakref__",)


_Place: TypeAlias = tuple[int, Group, Finals]
_Made: TypeAlias = tuple[list[FeedEvent], Finals, FeedEvent | None, int, int]


class Shared:
    """Events that consumers made of the log's newest rows, for others that stand at the same place and ask for the same."""

    def __init__(self, most: int) -> None:
        """``most``: about so many events are held; beyond, all are forgotten, and made again where they are asked for."""
        self._most = most
        self._made: dict[_Place, _Made] = {}
        self._groups: WeakValueDictionary[_Wanted, Group] = WeakValueDictionary()
        self.events = 0
        """How many are held."""

    def group(self, wanted: _Wanted) -> Group:
        """The one group of consumers that ask for this. It lives for as long as they hold it."""
        return self._groups.setdefault(wanted, Group())

    def get(self, place: _Place) -> _Made | None:
        """Events, and where whoever made them then stood: last final blocks, last event, position, up to where it had seen."""
        return self._made.get(place)

    def keep(self, place: _Place, made: _Made) -> None:
        """Holds them, unless they are too many."""
        self.events += len(made[0]) + 1
        if self.events > self._most:
            self.clear()
        else:
            self._made[place] = made

    def clear(self) -> None:
        """What was made no longer serves anybody."""
        self._made.clear()
        self.events = 0


class Tail:
    """Holds at most twice TAIL_EVENTS rows, and as many events as TAIL_EVENTS."""

    def __init__(self, head: int) -> None:
        """``head``: sequence of the log's last event; what follows will be read."""
        self.base = head
        """The rows are all of the log's behind this sequence, ..."""
        self.head = head
        """... up to this one."""
        self._rows: list[RawRow] = []
        self.shared = Shared(TAIL_EVENTS)
        """Events that consumers made of these rows."""

    def fetch(self, store: Store) -> tuple[int, list[RawRow]]:
        """What came since: the log's head, and the rows if they are not too many. In any thread."""
        with store.snapshot() as connection, decoding(store.path):
            head = log_head(connection)
            if not 0 < head - self.head <= TAIL_EVENTS:
                return head, []
            return head, connection.execute(f"{LOG}e.sequence > ? ORDER BY e.sequence", (self.head,)).fetchall()

    def extend(self, head: int, rows: list[RawRow]) -> None:
        """Takes what ``fetch`` has read."""
        if head == self.head:
            return
        if rows and len(rows) == head - self.head:
            self._rows += rows
        else:  # too many, or some were deleted already: who has not kept up reads the store
            self._rows = []
            self.base = head
        self.head = head
        self.shared.clear()
        if len(self._rows) > 2 * TAIL_EVENTS:
            surplus = len(self._rows) - TAIL_EVENTS
            self.base = self._rows[surplus - 1][0]
            del self._rows[:surplus]

    def after(self, sequence: int, limit: int) -> tuple[list[RawRow], int]:
        """At most ``limit`` rows behind this sequence, and up to which sequence they are all there are."""
        start = bisect_right(self._rows, sequence, key=_sequence)
        rows = self._rows[start : start + limit]
        return rows, rows[-1][0] if len(rows) == limit else self.head
