"""Calls into foreign code, on threads that may be lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import outcome
import trio

from supervm_rt.transports.interface import CallOverdue

T = TypeVar("T")


class ForeignCall(Generic[T]):
    """One call that runs on a thread of its own from construction on, and may never return.

    Waiting can be cancelled or pass its deadline, and be taken up again: the call itself goes on. The thread is a daemon, so a
    lost one does not keep the process from ending.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self.name = name
        self._result: outcome.Outcome[T] | None = None
        self._done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def arrive(result: outcome.Outcome[T]) -> None:
            self._result = result
            self._done.set()

        def deliver(result: outcome.Outcome[T]) -> None:
            with contextlib.suppress(trio.RunFinishedError):  # the loop ended first: nobody waits any more
                token.run_sync_soon(arrive, result)

        # Not one of Trio's: those are used again, and live on with what the plugin left in thread-specific data, whose
        # destructors would run when the library is gone.
        self._thread = threading.Thread(target=lambda: deliver(outcome.capture(function)), name=f"supervm {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the call has not come back yet."""
        return self._result is None

    def join(self) -> None:
        """Waits until the thread has ended, where the call has come back."""
        if not self.running:
            self._thread.join()

    async def settle(self, seconds: float, *, spent: float = 0.0) -> None:
        """Waits until the call has come back or so many seconds have passed, less those that were spent before."""
        with trio.move_on_after(max(seconds - spent, 0.0)):
            await self._done.wait()

    async def wait(self, seconds: float, *, spent: float = 0.0) -> T:
        """The call's result or exception. Raises CallOverdue after so many seconds, less those that were spent before."""
        await self.settle(seconds, spent=spent)
        if self._result is None:
            raise CallOverdue(f"{self.name} did not return within {seconds:g} s", remedy="the plugin hangs; ask its author")
        if isinstance(self._result, outcome.Error):  # unwrap() would work but once
            raise self._result.error
        assert isinstance(self._result, outcome.Value)
        value: T = self._result.value
        return value
