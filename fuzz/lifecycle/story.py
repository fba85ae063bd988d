"""Invariant: whatever plugins do in whichever call, and wherever the host is cancelled, told to stop or fails, a runtime ends:
every state and call is one that the model allows, what was initialised was stopped, what the host took is in the store, the
failure is named, and nothing is left running, open, mapped or on the disk, but what was reported as abandoned.

A story is one runtime in one trio.run, with a clock that stands still for calls that are under way: time passes only where
something hangs, so that a slow machine is no failure.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import trio
import trio.testing

import supervm_rt
from fuzz.lifecycle.leftovers import Holdings, holdings, left_since
from fuzz.lifecycle.lives import check_lives, uninterrupted
from fuzz.lifecycle.puppet import BLOCKS, Does, Part, Puppet, Works
from fuzz.reorgs.choices import Choices
from supervm_rt import (
    Deadlines,
    EventKind,
    HostEvent,
    PluginConfig,
    PluginState,
    PolicyLevel,
    RestartLimits,
    RestartPolicy,
    Runtime,
    RuntimeConfig,
)
from supervm_rt.transports.native.child import storage
from supervm_rt.transports.native.child import transport as child_transport
from supervm_rt.transports.native.child.cgroups import PREFIX
from supervm_rt.transports.native.child.host import machine, program
from supervm_rt.trust.policy import Placement

LENGTH = 32
"""Bytes that a story is made of."""
DEADLINE = 1000.0
"""Seconds of each call, on the story's clock."""
MEMORY = Path("/dev/shm")
ENDED = {PluginState.UNLOADED, PluginState.ABANDONED, PluginState.REFUSED, PluginState.QUARANTINED}
ROUNDS = 3
"""Lives after which a story with restarts ends."""


class Divergence(AssertionError):
    """A runtime did what the model does not allow."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing may fail where nobody can catch it: in a destructor or a thread. Raises Divergence at the end."""
    failures: list[str] = []
    usual, usual_in_threads = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda what: failures.append(f"{what.exc_value!r} in {what.object!r}")
    threading.excepthook = lambda what: failures.append(f"{what.exc_value!r} in {what.thread!r}")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
    finally:
        sys.unraisablehook, threading.excepthook = usual, usual_in_threads
    failures += [str(one.message) for one in warned]
    if failures:
        raise Divergence(f"nobody caught: {failures}")


class Interruption(enum.StrEnum):
    """What comes in between."""

    NOT = "nothing"
    CANCEL = "all is cancelled"
    STOP = "the first plugin is told to stop"
    FAIL = "the program around it fails"


class Ending(enum.StrEnum):
    """What is done when every plugin runs, has said all or has ended."""

    LEAVE = "the runtime is left"
    STOP = "each plugin is stopped"
    AGAIN = "the first plugin is stopped and added again"


@dataclass(frozen=True)
class Story:
    """One runtime's."""

    parts: tuple[Part, ...]
    restart: RestartPolicy = RestartPolicy.NEVER
    ending: Ending = Ending.LEAVE
    interruption: Interruption = Interruption.NOT
    at: int = 0
    """At which step of any task, counted from 1."""
    placement: Placement = Placement.IN_PROCESS
    """Of each plugin."""

    def __str__(self) -> str:
        parts = "".join(f"\n  plugin {index}: {part}" for index, part in enumerate(self.parts))
        interruption = f"{self.interruption} at step {self.at}" if self.at else "nothing interrupts"
        return f"{self.placement}; restart {self.restart}; {self.ending}; {interruption}{parts}"


class _Outside(Exception):
    """The failure of the program around the runtime."""


class _Interrupter(trio.abc.Instrument):
    """Acts at the n-th step of any task but those that only watch."""

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self.steps = 0
        self.acted = False
        self.ignored: set[trio.lowlevel.Task] = set()
        self._at = at
        self._action = action

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self.ignored:
            return
        self.steps += 1
        if self.steps == self._at:
            self.acted = True
            self._action()


class _Play:
    """One run of a story."""

    def __init__(self, story: Story, folder: Path) -> None:
        self.story = story
        self.store = folder / "store.db"
        within = story.placement is Placement.IN_PROCESS
        self.puppets = [
            Puppet(part, storage=None if within else folder / "store.db.plugins" / f"plugin-{index}")
            for index, part in enumerate(story.parts)
        ]
        self.configs = [
            PluginConfig(path=puppet.folder(folder / f"plugin-{index}"), name=f"plugin-{index}", chain=f"chain-{index}")
            for index, puppet in enumerate(self.puppets)
        ]
        self.events: list[HostEvent] = []
        self.steps = 0
        self.interrupted_in: str | None = None
        """The first plugin's state when the interruption came."""
        self.passed: Counter[str] = Counter()
        """How often time passed, by the state of the plugin for which it did."""
        self._changed = trio.Event()
        self._interrupted = trio.Event()
        self._scope = trio.CancelScope()
        self._clock = trio.testing.MockClock(rate=1.0)

    def run(self) -> None:
        """Plays it. What comes out is what came out of the runtime."""

        def action() -> None:
            states = self.states(0)
            self.interrupted_in = states[-1] if states else "registered"
            self._scope.cancel() if self.story.interruption is Interruption.CANCEL else self._interrupted.set()

        interrupter = _Interrupter(self.story.at, action)
        try:
            trio.run(self._main, interrupter, clock=self._clock, instruments=[interrupter])
        except* _Outside:
            if self.story.interruption is not Interruption.FAIL:
                raise
        self.steps = interrupter.steps

    def states(self, index: int) -> list[str]:
        """All that this plugin went through."""
        return [
            str(event.data["to"])
            for event in self.events
            if event.kind is EventKind.PLUGIN_STATE and event.plugin == f"plugin-{index}"
        ]

    def _receive(self, event: HostEvent) -> None:
        self.events.append(event)
        if event.kind is EventKind.PLUGIN_ABANDONED:
            names = [config.name for config in self.configs]
            self.puppets[names.index(str(event.plugin))].give_up_life()
        self._changed.set()
        self._changed = trio.Event()

    async def _main(self, interrupter: _Interrupter) -> None:
        async with trio.open_nursery() as around:
            if any(part.hangs for part in self.story.parts):
                await around.start(self._pass_time, interrupter)
            try:
                with self._scope:
                    await self._live()
            finally:
                around.cancel_scope.cancel()

    async def _pass_time(self, interrupter: _Interrupter, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Lets deadlines pass while a call does not return."""
        interrupter.ignored.add(trio.lowlevel.current_task())
        task_status.started()
        while True:
            await trio.sleep(0.001)
            hanging = [index for index, puppet in enumerate(self.puppets) if puppet.hanging]
            if hanging:
                self.passed.update(self.states(index)[-1] for index in hanging)
                self._clock.jump(DEADLINE + 1)

    async def _live(self) -> None:
        config = RuntimeConfig(
            store=self.store,
            plugins=tuple(self.configs),
            policy=PolicyLevel.DEV,
            ring_bytes=1 << 16,
            deadlines=Deadlines(load=DEADLINE, init=DEADLINE, start=DEADLINE, stop=DEADLINE),
            restarts=RestartLimits(first_delay=0.001, longest_delay=0.002, failures=ROUNDS, window=60),
        )
        if self.story.restart is not RestartPolicy.NEVER:
            config = _with_restart(config, self.story.restart)
        async with supervm_rt.open_runtime(config, receivers=(self._receive,)) as runtime, trio.open_nursery() as nursery:
            if self.story.interruption is Interruption.STOP:
                nursery.start_soon(self._stop_when_told, runtime)
            nursery.start_soon(self._go_through, runtime, nursery)
            if self.story.interruption is Interruption.FAIL:
                await self._interrupted.wait()
                raise _Outside

    async def _stop_when_told(self, runtime: Runtime) -> None:
        await self._interrupted.wait()
        await runtime.stop("plugin-0")

    async def _go_through(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        await self._settle(runtime)
        if self.story.ending is not Ending.LEAVE:
            stopped = list(runtime.plugins)[: 1 if self.story.ending is Ending.AGAIN else None]
            for plugin in stopped:
                status = await runtime.stop(plugin)
                if status.state not in ENDED or not status.finished:
                    raise Divergence(f"{plugin} was stopped and is {status.state}")
        if self.story.ending is Ending.AGAIN:
            await runtime.add(self.configs[0])
            await self._settle(runtime)
        nursery.cancel_scope.cancel()

    async def _settle(self, runtime: Runtime) -> None:
        """Until each runs (and has said all, if it ever does), or has ended, or has lived often enough."""
        while True:
            changed = self._changed
            statuses = runtime.plugins.values()
            if all(self._settled(status, puppet) for status, puppet in zip(statuses, self.puppets, strict=True)):
                return
            await changed.wait()

    def _settled(self, status: supervm_rt.PluginStatus, puppet: Puppet) -> bool:
        if self.story.restart is not RestartPolicy.NEVER and status.generation >= ROUNDS:
            return True
        if status.state in ENDED:
            # With restarts only some ends are the last one; none of them is followed by an event that would say so.
            part, restart = puppet.part, self.story.restart
            last = (
                restart is RestartPolicy.NEVER
                or status.finished
                or status.state in {PluginState.REFUSED, PluginState.QUARANTINED}
            )
            well = restart is RestartPolicy.ON_FAILURE and status.failure is None
            return last or well or _is_permanent(part) or self.story.interruption is Interruption.STOP
        if status.state is not PluginState.RUNNING:
            return False
        return status.idle or puppet.part.works not in {Works.PUBLISHES, Works.ASKS_FOR_SHUTDOWN, Works.GIVES_UP}


def _is_permanent(part: Part) -> bool:
    return part.broken or part.manifest in {Does.FAILS, Does.DISAGREES}


def _with_restart(config: RuntimeConfig, restart: RestartPolicy) -> RuntimeConfig:
    return replace(config, plugins=tuple(replace(plugin, restart=restart) for plugin in config.plugins))


def make_story(choices: Choices) -> Story:
    """Zeros: one plugin that does well, which nothing interrupts."""
    interruption = choices.pick((Interruption.NOT, Interruption.CANCEL, Interruption.STOP, Interruption.FAIL))
    at = 1 + choices.number(120)
    ending = choices.pick((Ending.LEAVE, Ending.LEAVE, Ending.STOP, Ending.AGAIN))
    restart = choices.pick((RestartPolicy.NEVER, RestartPolicy.NEVER, RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS))
    hanging = choices.seldom(24)
    count = 1 if hanging else choices.pick((1, 1, 2, 3))
    parts = tuple(_part(choices) for _ in range(count))
    if hanging:
        parts, restart = (_hanging(parts[0], choices),), RestartPolicy.NEVER
    # What hangs in a constructor or destructor holds the dynamic linker: nothing can be loaded after it.
    holds_linker = any(Does.HANGS in {part.constructor, part.destructor} for part in parts)
    if (restart is not RestartPolicy.NEVER or holds_linker) and ending is Ending.AGAIN:
        ending = Ending.LEAVE
    return Story(parts, restart, ending, interruption, 0 if interruption is Interruption.NOT else at)


def _part(choices: Choices) -> Part:
    well, slow, fails = Does.WELL, Does.SLOW, Does.FAILS
    mostly = (well, well, well, well, slow, fails)
    return Part(
        works=choices.pick((Works.PUBLISHES, Works.NOT, Works.FLOODS, Works.ASKS_FOR_SHUTDOWN, Works.GIVES_UP, Works.CHATTERS)),
        early=choices.pick((0, 0, 0, 3)),
        manifest=choices.pick((well, well, well, well, well, slow, fails, Does.DISAGREES)),
        init=choices.pick(mostly),
        start=choices.pick(mostly),
        stop=choices.pick(mostly),
        constructor=choices.pick((well, well, slow)),
        destructor=choices.pick((well, well, slow)),
        broken=choices.seldom(24),
    )


def _hanging(part: Part, choices: Choices) -> Part:
    changes: tuple[dict[str, Does | Works], ...] = (
        {"init": Does.HANGS},
        {"start": Does.HANGS},
        {"start": Does.WAITS},
        {"stop": Does.HANGS},
        {"manifest": Does.HANGS},
        {"constructor": Does.HANGS},
        {"destructor": Does.HANGS},
        {"works": Works.STAYS},
        {"works": Works.KEEPS_A_RESERVATION},
    )
    return replace(part, **choices.pick(changes), broken=False)  # type: ignore[arg-type]


def play(story: Story, met: Counter[str] | None = None) -> int:
    """Plays a story and compares; counts in ``met`` what happened. Returns the number of steps. Raises Divergence."""
    folder = Path(tempfile.mkdtemp(prefix="supervm-lifecycle-", dir=MEMORY if MEMORY.is_dir() else None))
    if story.placement is Placement.CHILD:
        warm()
    before = holdings()
    usual = tempfile.tempdir
    (folder / "tmp").mkdir()
    tempfile.tempdir = str(folder / "tmp")
    try:
        played = _Play(story, folder)
        try:
            with quiet(), observable():
                played.run()
                _check(played, folder, before)
        except Divergence:
            raise
        except Exception as error:
            raise Divergence(f"{error!r} came out of the runtime") from error
        finally:
            for puppet in played.puppets:
                puppet.release()
        if met is not None:
            _count(played, met)
        return played.steps
    finally:
        tempfile.tempdir = usual
        shutil.rmtree(folder)


def warm() -> None:
    """What a process finds out, and keeps, with its first child."""
    machine()
    for name in ("supervm-runner", "supervm-launch"):
        program(name)


@contextlib.contextmanager
def observable() -> Iterator[None]:
    """What a plugin notes lies in its storage, where it is seen while it lives; the kernel is not on the story's clock."""
    with (
        mock.patch.object(storage, "images_work", return_value=False),
        mock.patch.object(child_transport, "END_SECONDS", 10_000 * DEADLINE),
    ):
        yield


def groups() -> list[str]:
    """The control groups of this process's children."""
    bases = machine().bases
    return (
        [] if bases is None else [str(path) for base in bases.folders.values() for path in base.glob(f"{PREFIX}{os.getpid()}-*")]
    )


def _count(played: _Play, met: Counter[str]) -> None:
    met["stories"] += 1
    for state, count in played.passed.items():
        met[f"time passes, {state}"] += count
    if played.interrupted_in is not None:
        met[f"{played.story.interruption}, {played.interrupted_in}"] += 1
    for event in played.events:
        if event.kind is EventKind.PLUGIN_STATE:
            met[f"state {event.data['to']}"] += 1
        elif event.kind in {EventKind.PLUGIN_FAILED, EventKind.PLUGIN_RESTARTING, EventKind.PLUGIN_SHUTDOWN_REQUESTED}:
            met[str(event.kind)] += 1


def _check(played: _Play, folder: Path, before: Holdings) -> None:
    states = [played.states(index) for index in range(len(played.puppets))]
    abandoned = [index for index, lived in enumerate(states) if "abandoned" in lived]
    for index in abandoned:
        if not played.puppets[index].part.may_leave(played.story.placement):
            reasons = [event.message for event in played.events if event.kind is EventKind.PLUGIN_ABANDONED]
            raise Divergence(f"plugin {index} was abandoned: {reasons}")
    for index, puppet in enumerate(played.puppets):
        problem = check_lives(states[index], puppet.lives, puppet.part, played.story.placement) or _check_whole(
            played, index, states[index]
        )
        if problem:
            raise Divergence(f"plugin {index}: {problem}; {states[index]}, {puppet.lives}")
        if index not in abandoned:
            _check_store(played, index)
    _check_left(played, abandoned, before)
    for index, puppet in enumerate(played.puppets):
        if index not in abandoned:
            puppet.forget()
    found = {path.name for path in folder.iterdir()} - {config.name for config in played.configs}
    if not found <= {"store.db", "store.db.lock", "store.db.plugins", "tmp"} or list((folder / "tmp").iterdir()):
        raise Divergence(f"files are left: {sorted(found)}, {list((folder / 'tmp').iterdir())}")


def _check_whole(played: _Play, index: int, states: list[str]) -> str | None:
    """A life that nobody interrupted went as it had to."""
    story, part = played.story, played.puppets[index].part
    if story.restart is not RestartPolicy.NEVER:
        return None
    if story.interruption not in {Interruption.NOT, Interruption.STOP} or (story.interruption is Interruption.STOP and not index):
        return None
    again = story.ending is Ending.AGAIN and index == 0
    life = uninterrupted(part, story.placement)
    failures = [
        event.message for event in played.events if event.kind is EventKind.PLUGIN_FAILED and event.plugin == f"plugin-{index}"
    ]
    halves = [states]
    if again:
        end = next((place for place, state in enumerate(states) if state in ENDED), len(states)) + 1
        halves = [states[:end], states[end:]]
    for half in halves:
        if not life.states.fullmatch(" ".join(half)):
            return f"expected the states {life.states.pattern}"
    lives = played.puppets[index].lives
    if life.calls is not None and not all(life.calls.fullmatch(calls) for calls in lives):
        return f"expected the calls {life.calls.pattern}"
    count = 0 if life.failure is None else 1 + again
    if life.failure != "" and (len(failures) != count or any(str(life.failure) not in said for said in failures)):
        return f"expected the failure {life.failure}, not {failures}"
    settled = part.works is Works.PUBLISHES and "running" in states
    if settled and played.puppets[index].published != (BLOCKS + part.early) * (1 + again):
        return f"it published {played.puppets[index].published} blocks"
    return None


def _check_store(played: _Play, index: int) -> None:
    """What the host took is there, and the position with it."""
    published = played.puppets[index].published
    if not played.store.exists():
        if published:
            raise Divergence(f"plugin {index} published {published} blocks, and there is no store")
        return
    with supervm_rt.Store.open(played.store, read_only=True) as store:
        position = store.position(f"plugin-{index}", f"chain-{index}")
        found = 0 if position is None else int.from_bytes(position, "little")
        tip = store.chain(f"chain-{index}").tip() if any(chain.name == f"chain-{index}" for chain in store.chains()) else None
    height = 0 if tip is None else tip.height
    if not found == height == published:
        raise Divergence(f"plugin {index} published {published} blocks; the tip is {height}, the position {found}")


def _check_left(played: _Play, abandoned: list[int], before: Holdings) -> None:
    for puppet in played.puppets:
        puppet.release()
    if not abandoned:
        left = left_since(before) or ", ".join(groups() if played.story.placement is Placement.CHILD else [])
        if left:
            raise Divergence(f"left behind: {left}")
        return
    lives = sum(event.kind is EventKind.PLUGIN_ABANDONED for event in played.events)
    allowed = Holdings(
        threads=before.threads,
        descriptors=before.descriptors + holdings().descriptors,
        mappings=before.mappings + holdings().mappings,
        slots=before.slots + lives,
        children=before.children,
    )
    left = left_since(allowed)
    gc.collect()  # what was given up must know it when it is forgotten, or it warns
    if left:
        raise Divergence(f"left behind, beyond {lives} abandoned: {left}")
