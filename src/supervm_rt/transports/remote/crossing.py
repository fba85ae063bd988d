"""From a task of the asyncio loop into Trio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def on_trio(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Runs a function of Trio's to its end; cancelling this cancels it.

    By the loop itself: which loop is the current one depends on where a connection was accepted.
    """
    loop: Any = asyncio.get_running_loop()
    try:
        return cast("T", await loop.trio_as_future(function, *arguments))
    finally:
        # A function that ends while it is being cancelled ends as it likes: the call is over all the same.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
