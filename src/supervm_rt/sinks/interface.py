"""What a sink is, and what feeds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from supervm_rt.runtime import Runtime
from supervm_rt.store.feed import BEGINNING, Feed, FeedEvent


class Sink(Protocol):
    """Somewhere that events go, in order, each once."""

    async def cursor(self) -> str | None:
        """The cursor that it keeps; None: it has no event yet."""

    async def write(self, events: list[FeedEvent]) -> None:
        """Takes events, blocks included, and keeps ``events[-1].cursor``: all of it, or after an exception nothing."""


async def drain(
    feed: Feed | Runtime, chains: str | Sequence[str], sink: Sink, *, start: str | int = BEGINNING, follow: bool = True
) -> int:
    """Hands a sink all events behind its cursor, a page at a time; ends where the feed ends, or with the log. How many it was.

    ``start``: where to begin while the sink has no cursor. Raises what the sink raises, and what a subscription does; the sink
    then is where it was, and may be drained into again.
    """
    subscription = feed.subscribe(chains, cursor=await sink.cursor(), start=start, ir=True, follow=follow)
    count = 0
    while events := await subscription.batch():
        await sink.write(events)
        count += len(events)
    return count
