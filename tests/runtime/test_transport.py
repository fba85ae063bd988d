"""Calls of a transport out of their order are refused, and spoil nothing (clause L1)."""

from __future__ import annotations

import gc
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio

from fuzz.lifecycle.puppet import Does, Part, Puppet, Works
from supervm_rt import Deadlines
from supervm_rt._abi import SealedLibrary, slots_in_use
from supervm_rt.errors import LifecycleError
from supervm_rt.model.manifest import Capability
from supervm_rt.transports.interface import CallOverdue
from supervm_rt.transports.native.in_process import InProcessTransport

DEADLINES = Deadlines(load=60, init=60, start=60, stop=60)


def transport(puppet: Puppet, deadlines: Deadlines = DEADLINES) -> InProcessTransport:
    return InProcessTransport(
        SealedLibrary(puppet.code()), name="it", generation=1, ring_bytes=1 << 16, heartbeat=None, deadlines=deadlines
    )


def call(it: InProcessTransport, name: str) -> Callable[[], Awaitable[object]]:
    async def grant() -> None:
        it.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=b"{}", position=None)

    async def abandon() -> None:
        it.abandon()

    others: dict[str, Callable[[], Awaitable[object]]] = {"grant": grant, "abandon": abandon}
    return others[name] if name in others else getattr(it, name)


WELL = "CcMmFfIiSsTtDd"


@pytest.mark.parametrize(
    ("calls", "refused", "lived"),
    [
        ("load load grant init start stop", [1], WELL),
        ("load grant init init start stop", [3], WELL),
        ("load grant init start start stop", [4], WELL),
        ("load grant start init start stop", [2], WELL),
        ("load init grant init start stop", [1], WELL),
        ("load grant init grant start stop", [3], WELL),
        ("load grant init start stop stop", [5], WELL),
        ("load grant stop init", [3], "CcMmFfDd"),
        ("load grant init stop start", [4], "CcMmFfIiTtDd"),
        ("unload load", [1], ""),
        ("load unload load", [2], "CcMmFfDd"),
        ("abandon load", [1], ""),
    ],
)
def test_a_call_out_of_order_is_refused_and_spoils_nothing(calls: str, refused: list[int], lived: str) -> None:
    puppet = Puppet(Part(works=Works.NOT))
    before = slots_in_use()

    async def main() -> None:
        it = transport(puppet)
        for index, name in enumerate(calls.split()):
            if index in refused:
                with pytest.raises(LifecycleError, match="it: "):
                    await call(it, name)()
            else:
                await call(it, name)()
        await it.unload()

    trio.run(main)
    assert "".join(puppet.lives) == lived
    assert slots_in_use() == before


def test_a_load_that_was_cancelled_cannot_be_begun_again() -> None:
    puppet = Puppet(Part(works=Works.NOT))
    before = slots_in_use()

    async def main() -> None:
        it = transport(puppet)
        with trio.CancelScope() as scope:
            scope.cancel()
            await it.load()
        with pytest.raises(LifecycleError, match="it: "):
            await it.load()
        await it.unload()

    trio.run(main)
    assert puppet.lives == ["CcDd"]
    assert slots_in_use() == before


@pytest.mark.own_process
def test_a_load_that_returns_after_it_was_given_up_is_marked_as_given_up() -> None:
    puppet = Puppet(Part(constructor=Does.HANGS), lasting=True)

    async def main() -> None:
        it = transport(puppet, Deadlines(load=0.05))
        with pytest.raises(CallOverdue, match="loading did not return"):
            await it.load()
        it.abandon()
        puppet.release()
        # The next library can be loaded only when the linker has let this one go.
        with trio.fail_after(60):
            while any(thread.name == "supervm it: loading" for thread in threading.enumerate()):
                await trio.sleep(0.001)

    trio.run(main)
    gc.collect()  # a plugin that was neither closed nor given up warns here, and warnings are errors
    assert puppet.lives == ["Cc"]
    assert slots_in_use() == 1


def test_stop_waits_for_a_start_that_is_within_its_deadline() -> None:
    """plugin_stop comes after plugin_start, also where whoever waited for start was cancelled."""
    lived = set()

    async def main(puppet: Puppet) -> None:
        it = transport(puppet)
        await it.load()
        await call(it, "grant")()
        await it.init()
        with trio.CancelScope() as scope:
            scope.cancel()
            await it.start()
        await it.stop()
        await it.unload()

    for _ in range(30):
        puppet = Puppet(Part(start=Does.SLOW, works=Works.PUBLISHES))
        trio.run(main, puppet)
        lived.update(puppet.lives)
    assert lived == {WELL}
