"""One life of a plugin that comes over gRPC, with the contract of every other transport (clauses T3, L1, L2, L5).

The Trio side (the supervisor) and the asyncio side (the calls of the plugin's connection) run on one thread, and meet here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt._abi import Frame, Message, RingStatistics
from supervm_rt.errors import HostError, LifecycleError, PluginError, RemoteEnded
from supervm_rt.model.manifest import Capability, Manifest, Resources
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.allowance import Allowance
from supervm_rt.transports.interface import CallOverdue, Confinement, Exhausted, Received
from supervm_rt.transports.remote._frames import first_frames, payload_bytes
from supervm_rt.transports.shortage import host_error
from supervm_rt.trust.policy import Placement

if TYPE_CHECKING:
    from supervm_rt.transports.remote.http2 import BoundedProtocol
    from supervm_rt.transports.remote.introduction import Introduction
    from supervm_rt.transports.remote.launching import Program
    from supervm_rt.transports.remote.sessions import Sessions

MAX_FRAMES = 8_192
"""Frames taken at once."""
MAX_WAITING = 65_536
"""Frames that wait to be taken, and those of one message more: a payload may be empty, a frame is not."""
MAX_MESSAGES = 8_192
"""Log lines and metrics that wait to be taken; further ones are dropped and counted."""
MESSAGES_A_SECOND = 2_000
DEFAULT_HEARTBEAT = 30.0
"""Seconds between two beats, told to a plugin whose manifest names none; it is held to them once it has beaten."""
END_SECONDS = 5.0
"""How long a call that was told to end may take, before its connection is cut."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a registration that was accepted."""

    plugin: str
    generation: int
    token: str
    capabilities: frozenset[Capability]
    configuration: bytes
    position: bytes | None
    window: int
    """Bytes of blocks that may be under way."""
    heartbeat: float
    """Seconds."""
    resources: Resources
    largest: int
    """Bytes of the longest message on its exchange."""


class Exchange:
    """The plugin's BlockExchange, while it is open: what is to be written on it."""

    def __init__(self, protocol: BoundedProtocol, revision: int) -> None:
        """``revision``: of the contract, that the plugin knows."""
        self.revision = revision
        self.protocol = protocol
        self.wanted = asyncio.Event()
        """There is something to write."""
        self.position: bytes | None = None
        """What is durable, and not told yet."""
        self.credit = 0
        """Bytes that may be sent besides, not granted yet."""
        self.answers: deque[bytes] = deque()
        """Encoded messages."""
        self.stop = False
        self.finish = False
        """The call is to end."""
        self.ended = trio.Event()
        """The call has ended."""

    def poke(self) -> None:
        """Wakes the writer."""
        self.wanted.set()


class RemoteTransport:
    """One life of one remote plugin. See PluginTransport for the contract."""

    confinement: Confinement | None = None

    def __init__(
        self,
        sessions: Sessions,
        plugin: str,
        *,
        manifest: Manifest,
        generation: int,
        window: int,
        deadlines: Deadlines,
        program: Program | None = None,
    ) -> None:
        """``window``: bytes of blocks that may wait here. ``program``: started by the host; None: it dials in by itself."""
        self.placement = Placement.REMOTE if program is None else Placement.CHILD
        self.plugin = plugin
        self.generation = generation
        self.token = ""
        self.introduction: Introduction | None = None
        self.protocol: BoundedProtocol | None = None
        """The connection over which it registered."""
        self.exchange: Exchange | None = None
        self._sessions = sessions
        self._manifest = manifest
        self._window = window
        self._deadlines = deadlines
        self._program = program
        self._next = "load"
        """The one call of load, grant, init and start that may come next; none of them where it is empty."""
        self._over = False
        self._introduced = trio.Event()
        self._answer: asyncio.Future[Admission] | None = None
        self._admission: Admission | None = None
        self._opened = trio.Event()
        self._something = trio.Event()
        self._frames: deque[list[Frame]] = deque()
        """Frames that wait, as they came together."""
        self._count = 0
        """How many frames wait."""
        self._waiting = 0
        """Their payload bytes."""
        self._messages: deque[Message] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._blocked = False
        self._dropping = False
        """It was told to stop and sent more than there is room for: nothing behind that can be taken."""
        self._shutdown: int | None = None
        self._ended: PluginError | HostError | None = None
        self._beats = False
        self._sign = time.monotonic()
        self._exhausted: list[Exhausted] = []
        self._allowance = Allowance(rate=MESSAGES_A_SECOND, burst=MAX_MESSAGES)
        self._told = [0, 0, 0, 0]
        """Frames, their bytes, messages, waits for room."""

    # ---- the lifecycle, for the supervisor -----------------------------------------------------------------------------------

    def _take(self, call: str) -> None:
        """Takes the call that is next, so that none is made twice. Raises LifecycleError for any other, and changes nothing."""
        if call != self._next or self._over:
            allowed = f"{self._next} is next" if self._next and not self._over else "nothing can be begun any more"
            raise LifecycleError(
                f"{self.plugin}: {call} was called out of order ({allowed})", remedy="load, grant, init, start, stop"
            )
        self._next = ""

    async def load(self) -> bytes:
        """Waits until the plugin registers; starts it before, where the host does. Raises CallOverdue, RemoteEnded, LoadError."""
        self._take("load")
        if self._program is None:
            self._sessions.expect(self)
            await self._introduced.wait()
        else:
            await self._launch(self._program)
        assert self.introduction is not None
        self._next = "grant"
        return self._sessions.said(self._manifest, self.introduction)

    async def _launch(self, program: Program) -> None:
        started = False
        with trio.move_on_after(self._deadlines.load):
            try:
                await program.start(self)
            except OSError as error:
                raise host_error(self.plugin, "it cannot be started", error) from None
            started = True
            self.confinement = program.confinement
            self._sessions.expect(self)
            await program.wait_for(self._introduced)
        if self._introduced.is_set():
            return
        within = f"within {self._deadlines.load:g} s"
        if started:
            raise CallOverdue(
                f"{self.plugin}: it did not register {within} of its start",
                remedy="it has to call Register over the socket that SUPERVM_SOCKET names",
            )
        raise CallOverdue(
            f"{self.plugin}: its sandbox was not ready {within}", remedy="raise deadlines.load, if its image is a large one"
        )

    def grant(self, *, capabilities: frozenset[Capability], configuration: bytes, position: bytes | None) -> None:
        """Says what the plugin may do and where it resumes."""
        self._take("grant")
        self._admission = Admission(
            self.plugin,
            self.generation,
            self.token,
            capabilities,
            configuration,
            position,
            self._window,
            self.longest_silence,
            self._manifest.resources,
            self._sessions.limits.message,
        )
        self._next = "init"

    async def init(self) -> None:
        """Answers its Register."""
        self._take("init")
        self._check()
        assert self._answer is not None
        if not self._answer.done():
            self._answer.set_result(self._admission)  # type: ignore[arg-type]
        self._sign = time.monotonic()
        self._next = "start"
        await trio.lowlevel.checkpoint()

    async def start(self) -> None:
        """Waits for its BlockExchange, where it has blocks to send. Raises CallOverdue, RemoteEnded."""
        self._take("start")
        self._check()
        if Capability.BLOCK_STREAM not in self._manifest.capabilities:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(self._deadlines.start):
            await self._opened.wait()
            self._check()
            return
        raise CallOverdue(
            f"{self.plugin}: it opened no BlockExchange within {self._deadlines.start:g} s of its registration",
            remedy="a plugin with the capability block_stream opens one as soon as it is registered",
        )

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended

    async def receive(self) -> Received:
        """Waits until it said something. Raises RemoteEnded once all that was said is taken."""
        # No checkpoint between taking frames and returning them: a cancellation there would lose what was taken.
        await trio.lowlevel.checkpoint()
        while True:
            received = self.receive_rest()
            if received:
                return received
            if self._ended is not None:
                raise await self._why()
            self._something = trio.Event()
            await self._something.wait()

    async def _why(self) -> PluginError | HostError:
        assert self._ended is not None
        if self._program is not None and isinstance(self._ended, RemoteEnded) and self._ended.cause == "disconnect":
            self._ended = await self._program.explain(self._ended)
        return self._ended

    def gather(self, received: Received) -> Received:
        """All that a commit may hold is given at once."""
        return received

    def receive_rest(self) -> Received:
        """What is there now: a quarter of the window at most."""
        frames: list[Frame] = []
        size, most = 0, self._window // 4
        while self._frames and len(frames) < MAX_FRAMES and size < most:
            together = self._frames[0]
            length = payload_bytes(together)
            if len(frames) + len(together) > MAX_FRAMES or size + length > most:
                count = first_frames(together, MAX_FRAMES - len(frames), most - size)
                self._frames[0] = together[count:]
                together = together[:count]
                length = payload_bytes(together)
                if not self._frames[0]:
                    self._frames.popleft()
            else:
                self._frames.popleft()
            frames += together
            size += length
        self._count -= len(frames)
        messages = tuple(self._messages)
        self._messages.clear()
        shutdown = None
        if not self._frames:
            # In the order in which it came: blocks that were sent before still count.
            shutdown, self._shutdown = self._shutdown, None
        if frames:
            self._waiting -= size
            if not self._full:
                self._room.set()
            if self.exchange is not None:
                self.exchange.credit += size
                if self.exchange.credit >= most:
                    self.exchange.poke()
        exhausted, self._exhausted = self._exhausted, []
        return Received(frames=frames, messages=messages, shutdown=shutdown, exhausted=exhausted)

    def committed(self, position: bytes) -> None:
        """Tells it what is durable."""
        if self.exchange is not None:
            self.exchange.position = position
            self.exchange.poke()

    async def stop(self) -> None:
        """Tells it to stop, and waits until it ends its BlockExchange. Raises LifecycleError."""
        if self._over:
            raise LifecycleError(f"{self.plugin}: stop was called out of order (it has ended)", remedy="stop once, before unload")
        self._over = True
        if self._program is not None:
            self._program.let_go()
        exchange = self.exchange
        if exchange is None:
            await trio.lowlevel.checkpoint()
            return
        exchange.stop = True
        exchange.poke()
        self._room.set()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._deadlines.stop):
                await exchange.ended.wait()
                return
            exchange.protocol.cut(f"{self.plugin} did not stop")
            raise LifecycleError(
                f"{self.plugin}: it did not end its BlockExchange within {self._deadlines.stop:g} s of being told to stop; "
                "its connection was closed",
                remedy="it has to end its side of the stream when it is told to stop",
            )

    async def unload(self) -> None:
        """Takes its token back, ends its call and, where the host started it, its process. Raises LifecycleError."""
        self._over = True
        with trio.CancelScope(shield=True):
            self._leave("its life has ended")
            exchange = self.exchange
            if exchange is not None:
                exchange.finish = True
                exchange.poke()
                with trio.move_on_after(END_SECONDS):
                    await exchange.ended.wait()
                if not exchange.ended.is_set():
                    exchange.protocol.cut(f"{self.plugin} does not take the end of its call")
                    with trio.move_on_after(END_SECONDS):
                        await exchange.ended.wait()
            if self._program is not None:
                await self._program.end(min(self._deadlines.stop, 1.0))
            self._frames.clear()
            self._count = 0
        if exchange is not None and not exchange.ended.is_set():
            raise LifecycleError(
                f"{self.plugin}: its call did not end within {END_SECONDS:g} s of its connection being closed",
                remedy="report it: this is the host's own fault",
            )

    def abandon(self) -> None:
        """Gives it up."""
        self._over = True
        self._leave("it was given up")
        if self.exchange is not None:
            self.exchange.protocol.cut(f"{self.plugin} was given up")
        if self._program is not None:
            self._program.kill()

    def _leave(self, why: str) -> None:
        self._sessions.leave(self)
        if self._ended is None:
            self._ended = RemoteEnded(f"{self.plugin}: {why}", cause="stop")
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(GRPCError(Status.UNAVAILABLE, f"{self.plugin}: {why}"))

    @property
    def longest_silence(self) -> float:
        """Seconds of silence that are allowed."""
        return self._manifest.heartbeat if self._manifest.heartbeat is not None else DEFAULT_HEARTBEAT

    def silence(self) -> float | None:
        """Seconds since its last sign of life, where its manifest sets a heartbeat or it has beaten."""
        if self._admission is None or self._ended is not None or (self._manifest.heartbeat is None and not self._beats):
            return None
        if self._program is not None and self._program.paused:
            return None
        last = self._sign if self._program is None else max(self._sign, self._program.continued)
        return 0.0 if self._blocked else max(time.monotonic() - last, 0.0)

    def statistics(self) -> RingStatistics | None:
        """Counters, in the words of the ring: its capacity is the window."""
        frames, size, messages, waits = self._told
        return RingStatistics(
            capacity=self._window,
            used=self._waiting,
            pinned_frames=self._count,
            frames=frames,
            bytes=size,
            waits=waits,
            wakeups=0,
            copied_out=0,
            messages=messages,
            dropped_messages=self._allowance.refused + (self._program.dropped if self._program is not None else 0),
        )

    # ---- what its calls say, on the asyncio side -----------------------------------------------------------------------------

    def may(self, capability: Capability) -> bool:
        """Whether it was granted a capability."""
        return self._admission is not None and capability in self._admission.capabilities

    @property
    def chain(self) -> str:
        """The chain that it registered with."""
        return self._manifest.chain

    @property
    def awaited(self) -> bool:
        """Whether a registration can be its."""
        return self.introduction is None and not self._over

    def introduce(self, introduction: Introduction, protocol: BoundedProtocol, token: str) -> asyncio.Future[Admission]:
        """It registers. What is returned is set once the supervisor has admitted it, or is refused with a GRPCError."""
        self.introduction, self.protocol, self.token = introduction, protocol, token
        self._answer = asyncio.get_running_loop().create_future()
        self._introduced.set()
        return self._answer

    def attach(self, protocol: BoundedProtocol) -> Exchange:
        """Its BlockExchange begins. Raises GRPCError."""
        if self._admission is None or self._ended is not None or self._over:
            raise GRPCError(Status.FAILED_PRECONDITION, f"{self.plugin}: this life of it is over: register again")
        if self.exchange is not None:
            raise GRPCError(Status.ALREADY_EXISTS, f"{self.plugin}: it has a BlockExchange already")
        assert self.introduction is not None
        self.exchange = Exchange(protocol, self.introduction.revision)
        self._sign = time.monotonic()
        self._opened.set()
        return self.exchange

    @property
    def _full(self) -> bool:
        return self._waiting >= self._window or self._count >= MAX_WAITING

    async def hear(self, frames: list[Frame]) -> None:
        """Takes frames, and the list; returns when there is room for more."""
        self._sign = time.monotonic()
        if self._dropping or not frames:
            return
        if self._over and self._full:
            self._dropping = True
            return
        self._frames.append(frames)
        self._count += len(frames)
        size = payload_bytes(frames)
        self._waiting += size
        self._told[0] += len(frames)
        self._told[1] += size
        self._something.set()
        if self._full and not self._over:
            self._told[3] += 1
            self._blocked = True
            self._room.clear()
            try:
                await self._room.wait()
            finally:
                self._blocked = False
                self._sign = time.monotonic()

    def say(self, message: Message, *, sign: bool = True) -> None:
        """Takes a log line or a metric sample, or drops and counts it. ``sign``: it is one of life."""
        if sign:
            self._sign = time.monotonic()
        if len(self._messages) < MAX_MESSAGES and self._allowance.take(1):
            self._messages.append(message)
            self._told[2] += 1
            self._something.set()

    def submit(self, message: Message) -> bool:
        """Takes a transaction; False: there is no room."""
        self._sign = time.monotonic()
        if len(self._messages) >= MAX_MESSAGES:
            return False
        self._messages.append(message)
        self._something.set()
        return True

    def beat(self, *, owes: bool = True) -> None:
        """A sign of life. ``owes``: from now on it is held to further ones."""
        self._beats = self._beats or owes
        self._sign = time.monotonic()

    def ask_shutdown(self, reason: int) -> None:
        """It asks to be shut down."""
        if self._shutdown is None:
            self._shutdown = reason
            self._something.set()

    def detach(self, exchange: Exchange, *, clean: bool, why: str, cause: str) -> None:
        """Its BlockExchange ended; ``clean``: the plugin itself ended it, and all that it sent is here."""
        exchange.ended.set()
        if clean and not self._over:
            self.ask_shutdown(0)
        elif not clean:
            self.lost(why, cause)
        self._something.set()

    def run_out(self, exhausted: Exhausted) -> None:
        """A limit of the process that the host started was reached."""
        self._exhausted.append(exhausted)
        self._something.set()

    def process_ended(self) -> None:
        """The process that the host started has ended."""
        assert self._program is not None
        if self._ended is None:
            self._ended = self._program.how_it_ended()
        for event in (self._something, self._opened):
            event.set()

    def lost(self, why: str, cause: str = "disconnect") -> None:
        """Its connection is gone, or it was given up for what it sent."""
        if self._ended is None:
            self._ended = RemoteEnded(f"{self.plugin}: {why}", cause=cause, remedy="see its own log; it has to register again")
        for event in (self._something, self._opened):
            event.set()
