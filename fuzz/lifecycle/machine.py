"""Invariant: as in ``fuzz.lifecycle.walk``; here hypothesis chooses the calls, and finds the shortest walk that breaks it."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import ClassVar

import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from fuzz.lifecycle.leftovers import holdings
from fuzz.lifecycle.story import Divergence, quiet
from fuzz.lifecycle.walk import IN_ORDER, LENGTH, Step, Walker, make_part
from fuzz.reorgs.choices import Choices

CANCELLED_AT = st.integers(min_value=0, max_value=3)


class TransportMachine(RuleBasedStateMachine):
    """One transport, in a loop on a thread of its own. Run it with ``hypothesis.stateful.run_state_machine_as_test``."""

    steps: ClassVar[int] = 0
    """Of all machines so far."""

    def __init__(self) -> None:
        super().__init__()
        self._walker: Walker | None = None
        self._before = holdings()
        self._token: trio.lowlevel.TrioToken | None = None
        self._over: trio.Event | None = None
        self._next = 0

    @initialize(setup=st.binary(min_size=LENGTH, max_size=LENGTH))
    def _begin(self, setup: bytes) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self._walker = Walker(make_part(Choices(setup)))
            self._over = trio.Event()
            self._token = trio.lowlevel.current_trio_token()
            ready.set()
            await self._over.wait()

        self._thread = threading.Thread(target=trio.run, args=(serve,))
        self._thread.start()
        ready.wait()

    def _step(self, call: str, cancelled_at: int) -> None:
        assert self._walker is not None
        TransportMachine.steps += 1
        trio.from_thread.run(self._walker.step, Step(call, cancelled_at), trio_token=self._token)

    @rule(at=CANCELLED_AT)
    def makes_the_next_call(self, at: int) -> None:
        """In order: it is offered twice."""
        self._step(IN_ORDER[self._next % len(IN_ORDER)], at)
        self._next += 1

    @rule(at=CANCELLED_AT)
    def goes_on(self, at: int) -> None:
        """See above."""
        self.makes_the_next_call(at)

    @rule(call=st.sampled_from(IN_ORDER))
    def makes_any_call(self, call: str) -> None:
        """Mostly out of order."""
        self._step(call, 0)

    def teardown(self) -> None:
        """Ends it well, and looks at what is left, unless a step has failed or hypothesis breaks off."""
        if self._walker is None or self._over is None or self._token is None:
            return
        failed = sys.exc_info()[0] is not None
        with quiet():
            try:
                with contextlib.suppress(Divergence) if failed else contextlib.nullcontext():
                    trio.from_thread.run(self._walker.finish, trio_token=self._token)
            finally:
                trio.from_thread.run_sync(self._over.set, trio_token=self._token)
                self._thread.join()
        if not failed:
            self._walker.check(self._before)
