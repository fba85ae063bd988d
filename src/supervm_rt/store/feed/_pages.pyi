"""The compiled part of a subscription."""

from collections.abc import AsyncIterator, Coroutine
from typing import Any

from supervm_rt.store.feed.events import FeedEvent

class Pages(AsyncIterator[FeedEvent]):
    """Gives the events of one page after another; while one is at hand, without a coroutine. A subclass has ``_advance``."""

    _page: list[FeedEvent]
    _next: int
    """Which of the page's events is next."""

    def __anext__(self) -> Coroutine[Any, Any, FeedEvent]: ...
    async def _advance(self) -> FeedEvent:
        """The first event of the next page. Raises StopAsyncIteration where there is none."""
