"""Seeded bugs of the feed, and what notices them."""

from __future__ import annotations

from typing import Final

from faults.fault import Fault

_READER: Final = "src/supervm_rt/store/feed/reader.py"
_MACHINE: Final = ("fuzz.reorgs", "--seconds", "60")

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="feed-begins-one-late-at-a-height",
        meaning="a consumer that begins at a height misses the event by which the chain rose to it",
        file="src/supervm_rt/store/feed/log.py",
        old="            high = middle\n    return low\n",
        new="            high = middle\n    return low + 1\n",
        caught_by=_MACHINE,
    ),
    Fault(
        name="feed-tells-the-last-event-again",
        meaning="a page begins with the event that the page before ended with",
        file=_READER,
        old="e.chain = ? AND e.sequence > ? ORDER BY e.sequence LIMIT ?",
        new="e.chain = ? AND e.sequence >= ? ORDER BY e.sequence LIMIT ?",
        caught_by=_MACHINE,
    ),
    Fault(
        name="feed-forgets-what-a-full-page-left",
        meaning="after a full page the rest of the log counts as read",
        file=_READER,
        old="            exhausted = len(rows) < limit\n            self.seen = head if exhausted else self.position\n",
        new="            exhausted = len(rows) < limit\n            self.seen = head\n",
        caught_by=_MACHINE,
    ),
    Fault(
        name="feed-consumers-exchange-their-cursors",
        meaning="a consumer that takes nothing of a shared page is moved to where the one that made it began",
        file=_READER,
        old="            if last is not None:  # else nothing was passed, and each stays where it stands\n"
        "                self._last, self.position = last, position\n",
        new="            self._last, self.position = last, position\n",
        caught_by=_MACHINE,
    ),
    Fault(
        name="feed-cursor-without-its-chains-places",
        meaning="a cursor of several chains goes on from the beginning of those that began late",
        file="src/supervm_rt/chain/cursor.py",
        old="        out += _NUMBER.pack(place.after) + _NUMBER.pack(place.floor)\n",
        new="        out += _NUMBER.pack(0) + _NUMBER.pack(place.floor)\n",
        caught_by=("pytest", "tests/chain/test_cursor.py"),
    ),
    Fault(
        name="feed-cursor-with-half-a-mac",
        meaning="only the first half of a cursor's MAC is compared",
        file="src/supervm_rt/chain/cursor.py",
        old="hmac.compare_digest(self._mac(data[:-_MAC_BYTES]), data[-_MAC_BYTES:])",
        new="hmac.compare_digest(self._mac(data[:-_MAC_BYTES])[:8], data[-_MAC_BYTES:-8])",
        caught_by=("pytest", "tests/chain/test_cursor.py"),
    ),
    Fault(
        name="feed-horizon-at-a-block-that-is-not-final",
        meaning="events are deleted up to a block that can still be undone",
        file="src/supervm_rt/store/feed/retention.py",
        old="state != StateCode.CUT and height > final_height:",
        new="state != StateCode.CUT and height > final_height + 3:",
        caught_by=("pytest", "tests/feed/test_reader.py", "-x"),
    ),
    Fault(
        name="feed-refuses-no-deleted-events",
        meaning="a cursor whose next events were deleted goes on behind the hole",
        file=_READER,
        old="or stands >= horizon.sequence:",
        new="or stands >= 0:",
        caught_by=("pytest", "tests/feed/test_reader.py", "-x"),
    ),
    Fault(
        name="feed-deletes-undone-events-with-the-others",
        meaning="events of undone blocks go before the time for which they are to be kept",
        file="src/supervm_rt/store/feed/retention.py",
        old="_undone_before(connection, chain, min(self._old, horizon), limit - len(found))",
        new="_undone_before(connection, chain, horizon, limit - len(found))",
        caught_by=("pytest", "tests/feed/test_reader.py", "-x", "-k", "promised"),
    ),
    Fault(
        name="feed-does-not-go-back-from-an-undone-block",
        meaning="a consumer that comes back to an undone block is not told that it was undone",
        file=_READER,
        old="        if undone:\n            self._below",
        new="        if False:\n            self._below",
        caught_by=("pytest", "tests/feed/test_reader.py", "-x", "-k", "promised"),
    ),
    Fault(
        name="feed-bell-does-not-ring",
        meaning="a commit of another process is not heard",
        file="src/supervm_rt/store/lock.py",
        old="                os.pwrite(self._descriptor, self._holder, 0)\n",
        new="                pass\n",
        caught_by=("pytest", "-x", "tests/feed/test_feed.py", "-k", "wakes"),
    ),
    Fault(
        name="tail-keeps-the-cursor-before-the-lines",
        meaning="the state is written before the lines: a kill between loses them",
        file="src/supervm_rt/cli/tail.py",
        old="            await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)\n",
        new="            await self._save(events[-1].cursor)\n            await trio.sleep(0.05)\n"
        "            await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)\n",
        caught_by=("pytest", "tests/cli/test_tail.py", "-k", "leaves_nothing_out"),
    ),
    Fault(
        name="feed-iterator-leaves-out-events",
        meaning="the compiled iterator moves on by two",
        file="src/supervm_rt/store/feed/_pages.c",
        old="            pages->next++;\n",
        new="            pages->next += 2;\n",
        caught_by=("pytest", "tests/feed/test_pages.py", "-x"),
    ),
)
