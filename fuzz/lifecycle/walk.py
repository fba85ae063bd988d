"""Invariant: a transport's calls in any order, each cancelled anywhere, keep to the contract: the call that is next is made, any
other gives LifecycleError and changes nothing; the plugin was called in order, each call once; what unload gave back is gone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from fuzz.lifecycle.leftovers import Holdings, holdings, left_since
from fuzz.lifecycle.lives import check_lives
from fuzz.lifecycle.puppet import Does, Part, Puppet, Works
from fuzz.lifecycle.story import DEADLINE, MEMORY, Divergence, observable, quiet, warm
from fuzz.reorgs.choices import Choices
from supervm_rt import Deadlines
from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import LifecycleError, LoadError
from supervm_rt.model.manifest import Capability, Resources, Security
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.transports.native.in_process import InProcessTransport
from supervm_rt.trust.policy import Placement

NativeTransport = InProcessTransport | ChildTransport
IN_ORDER = ("load", "grant", "init", "start", "receive_rest", "stop", "receive_rest", "unload")
LENGTH = 64
"""Bytes that a walk is made of."""
CALLS = ("load", "grant", "init", "start", "receive_rest", "stop", "unload", "abandon")


@dataclass
class Expected:
    """Where the transport is, by its contract."""

    part: Part
    placement: Placement = Placement.IN_PROCESS
    begun: bool = False
    loaded: bool = False
    known: bool = False
    """It said what it is."""
    granted: bool = False
    init_called: bool = False
    initialised: bool = False
    started: bool = False
    ended: bool = False
    unloaded: bool = False
    abandoned: bool = False
    cut: bool = False
    """It may have ended within a call."""

    def legal(self, call: str) -> bool:
        """Whether this call may be made now."""
        going = self.loaded and not self.ended
        return {
            "load": not self.begun and not self.ended,
            "grant": going and self.known and not self.granted,
            "init": going and self.granted and not self.init_called,
            "start": going and self.initialised and not self.started,
            # The ring of a process that was given up goes with it.
            "receive_rest": self.loaded and not self.unloaded and not (self.abandoned and self.placement is Placement.CHILD),
            "stop": going,
            "unload": not self.abandoned or self.placement is Placement.CHILD,
            "abandon": True,
        }[call]

    def fails(self, call: str) -> bool:
        """Whether the plugin answers this call with a failure."""
        return (
            (call == "load" and self.part.manifest is Does.FAILS)
            or (call == "init" and self.part.init is Does.FAILS)
            or (call == "start" and self.part.start is Does.FAILS)
            or (call == "stop" and self.part.stop is Does.FAILS and self.init_called and self.part.init is not Does.FAILS)
        )

    def took(self, call: str, *, completed: bool, failed: bool) -> None:
        """A legal call was made, and came back or was cancelled."""
        match call:
            case "load":
                self.begun = True
                self.loaded = completed
                self.known = completed and not failed
            case "grant":
                self.granted = True
            case "init":
                self.init_called = True
                self.initialised = completed and not failed
            case "start":
                self.started = True
            case "stop":
                self.ended = True
            case "unload":
                self.cut = self.cut or (self.placement is Placement.CHILD and not self.ended)
                self.ended = True
                self.unloaded = not failed
                self.abandoned = failed or self.abandoned
            case "abandon":
                self.ended = self.cut = True
                self.abandoned = self.abandoned or (self.begun and not self.unloaded)


@dataclass(frozen=True)
class Step:
    """One call, cancelled at its n-th step (0: never)."""

    call: str
    cancelled_at: int = 0


@dataclass(frozen=True)
class Walk:
    """The calls of one transport."""

    part: Part
    steps: tuple[Step, ...]
    placement: Placement = Placement.IN_PROCESS

    def __str__(self) -> str:
        steps = " ".join(f"{step.call}{f'/{step.cancelled_at}' if step.cancelled_at else ''}" for step in self.steps)
        return f"{self.placement}; {self.part}: {steps}"


@dataclass(eq=False)
class _Canceller(trio.abc.Instrument):
    """Cancels at the n-th step of one task."""

    task: trio.lowlevel.Task
    at: int
    scope: trio.CancelScope
    steps: int = field(default=0)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.at:
                self.scope.cancel()


def make_part(choices: Choices) -> Part:
    """Zeros: one that does well."""
    well, slow, fails = Does.WELL, Does.SLOW, Does.FAILS
    return Part(
        works=choices.pick((Works.PUBLISHES, Works.NOT, Works.FLOODS, Works.CHATTERS)),
        early=choices.pick((0, 0, 3)),
        manifest=choices.pick((well, well, well, well, well, well, slow, fails)),
        init=choices.pick((well, well, well, slow, fails)),
        start=choices.pick((well, well, well, slow, fails)),
        stop=choices.pick((well, well, well, slow, fails)),
    )


def make_walk(choices: Choices) -> Walk:
    """Zeros: a whole life in order."""
    part = make_part(choices)
    steps = []
    for call in IN_ORDER:
        if choices.seldom(6):
            continue
        if choices.seldom(4):
            steps.append(Step(choices.pick(CALLS[:-1])))
        if choices.seldom(150):
            steps.append(Step("abandon"))
        steps.append(Step(call, choices.number(4) if choices.seldom(4) else 0))
    return Walk(part, tuple(steps))


class Walker:
    """One transport and its model, call by call. Use it inside a Trio loop; ``check`` outside."""

    def __init__(self, part: Part, storage: Path | None = None) -> None:
        """``storage``: of a plugin in a process of its own; None: it is in this one."""
        self._placement = Placement.IN_PROCESS if storage is None else Placement.CHILD
        self.puppet = Puppet(part, storage=storage)
        self.met: Counter[str] = Counter()
        self._expected = Expected(part, self._placement)
        make: Callable[..., NativeTransport] = InProcessTransport
        if storage is not None:
            resources = Resources(storage=1 << 20)
            make = partial(
                ChildTransport, security=Security(), folder=storage, read_paths={}, resources=resources, storage=storage
            )
        self._transport = make(
            SealedLibrary(self.puppet.code()),
            name="walk",
            generation=1,
            ring_bytes=1 << 16,
            heartbeat=None,
            deadlines=Deadlines(load=DEADLINE, init=DEADLINE, start=DEADLINE, stop=DEADLINE),
        )

    async def step(self, step: Step) -> None:
        """Makes one call, legal or not. Raises Divergence."""
        await _step(self._transport, self._expected, step, self.met)

    async def finish(self) -> None:
        """Whatever was left out, the end is a good one."""
        for call in ("stop", "unload"):
            if self._expected.legal(call):
                await self.step(Step(call))

    def check(self, before: Holdings) -> None:
        """What was called, and that nothing is left. Raises Divergence."""
        part, abandoned = self.puppet.part, self._expected.abandoned
        for life in self.puppet.lives:
            states = ["loading", "abandoned"] if abandoned or self._expected.cut else []
            problem = check_lives(states, [life], part, self._placement)
            # Who leaves out stop leaves out plugin_stop.
            unstopped = f"{life.removesuffix('Dd')}Tt{'Dd' * life.endswith('Dd')}" if "I" in life and "T" not in life else life
            if problem and check_lives(states, [unstopped], part, self._placement):
                raise Divergence(problem)
        if abandoned:
            self.puppet.release()
            self.met["given up"] += 1
            return
        left = left_since(before)
        if left:
            raise Divergence(f"left behind: {left}")
        self.puppet.forget()


def walk(walk_: Walk) -> Counter[str]:
    """Goes through it and compares. Returns what was met. Raises Divergence."""
    in_child = walk_.placement is Placement.CHILD
    if in_child:
        warm()
    before = holdings()
    folder = Path(tempfile.mkdtemp(prefix="supervm-walk-", dir=MEMORY if MEMORY.is_dir() else None))

    async def main() -> Walker:
        walker = Walker(walk_.part, folder / "storage" if in_child else None)
        for step in walk_.steps:
            await walker.step(step)
        await walker.finish()
        return walker

    try:
        with quiet(), observable():
            walker = trio.run(main)
        walker.check(before)
    finally:
        shutil.rmtree(folder)
    return walker.met


async def _step(transport: NativeTransport, expected: Expected, step: Step, met: Counter[str]) -> None:
    legal = expected.legal(step.call)
    failure: Exception | None = None
    with trio.CancelScope() as scope:
        canceller = _Canceller(trio.lowlevel.current_task(), step.cancelled_at, scope)
        trio.lowlevel.add_instrument(canceller)
        try:
            await trio.lowlevel.cancel_shielded_checkpoint()
            await _call(transport, step.call)
        except (LifecycleError, LoadError) as error:
            failure = error
        finally:
            trio.lowlevel.remove_instrument(canceller)
    completed = not scope.cancelled_caught
    if not legal:
        met[f"illegal {step.call}"] += 1
        if completed and not isinstance(failure, LifecycleError):
            raise Divergence(f"{step.call} out of order gave {failure!r}")
        return
    met[f"{step.call} {'made' if completed else 'cancelled'}"] += 1
    fails = expected.fails(step.call)
    if step.call == "unload" and expected.init_called and not expected.ended and failure is not None:
        fails = True  # nobody told it to stop: a call of it is under way, or its threads run
    if completed and (failure is not None) != fails:
        raise Divergence(f"{step.call} gave {failure!r}")
    expected.took(step.call, completed=completed, failed=failure is not None)


async def _call(transport: NativeTransport, call: str) -> None:
    match call:
        case "grant":
            transport.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=b"{}", position=None)
        case "receive_rest":
            transport.receive_rest()
        case "abandon":
            transport.abandon()
        case _:
            await getattr(transport, call)()
