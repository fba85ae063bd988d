"""Invariant: whatever one peer writes to the gRPC server's socket, nobody but this peer has any of it.

A real node listens on a Unix socket. Beside the story's peers there is an honest one, a registered plugin, whose calls are
answered in time while a story is told and afterwards, and whose blocks arrive. What the server says to a story's peers is HTTP/2,
the calls of a sound story get their status, and a peer that goes is let go: connections, calls, tasks, descriptors, registrations
and what is held for nobody come back to what they were, and memory stays within a bound, at its peak and in the end. No exception
is left to the loop, to a log, to a warning or to the collector.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hpack import Decoder
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from fuzz.http2.stories import Story
from supervm_rt import RestartLimits, Runtime, RuntimeConfig, open_runtime
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.trust.policy import PolicyLevel
from tests.remote.messages import block, register, registered
from tests.remote.support import RawPeer, framed

NEIGHBOUR_SECONDS = 2.0
"""For an answer to the honest peer, which a flood may come before."""
SETTLE_SECONDS = 20.0
"""For everything that a peer left behind."""
ANSWER_SECONDS = 20.0
PEAK_BYTES = 48 << 20
"""Of memory for one story, its own bytes included."""
GROWTH_BYTES = 48 << 20
"""Of memory over a campaign, after its first stories."""
WARM_STORIES = 1_000
LOOK_EVERY = 50
"""Stories between two blocks of the honest plugin, and two looks at what memory came to."""
LIMITS = RemoteLimits(
    message=1 << 20,
    request=1 << 16,
    connections=64,
    streams=16,
    unregistered_bytes=4 << 20,
    control_rate=500.0,
    idle=60.0,
)
MOST_BLOCKS = 250
READERS = 24
"""Descriptors of the store's readers, at most."""
HONEST = "org.example.honest"
RESTARTS = RestartLimits(first_delay=0.001, longest_delay=0.001, failures=1_000_000, window=1.0)


class Finding(Exception):
    """What the invariant does not allow."""


@dataclass
class Totals:
    """What a campaign came to."""

    stories: int = 0
    frames: int = 0
    """That the server sent to the peers of stories."""
    sound_calls: int = 0
    slowest: float = 0.0
    """Answer to the honest peer, in seconds."""
    slowest_of: str = ""
    peak: int = 0
    """Bytes that a story took at most."""
    peak_of: str = ""
    kinds: dict[str, int] = field(default_factory=dict)


class Judge:
    """One node, and what is compared."""

    def __init__(self, runtime: Runtime, path: Path, honest: RawPeer, complaints: list[str], totals: Totals) -> None:
        self._runtime = runtime
        self._path = path
        self._honest = honest
        self._exchange = 0
        self._complaints = complaints
        self._totals = totals
        self._height = 0
        self._base: dict[str, int] = {}
        self._descriptors = 0
        self._memory: int | None = None

    async def begin(self) -> None:
        """Lets the honest plugin in, and notes what there is without any story."""
        answer = await self._honest.call("Register", register(HONEST))
        if not registered(answer.messages[0]):
            raise Finding(f"the honest plugin is not let in: {answer}")
        self._exchange = await self._honest.begin("BlockExchange")
        await self._block()
        await self._health()
        self._descriptors = _descriptors()
        self._base = self._levels()

    def _levels(self) -> dict[str, int]:
        remote: Any = self._runtime._remote
        server, sessions = remote._gate._server, remote.sessions
        return {
            "connections": len(server.protocols),
            "connections on their way in": remote._gate._coming,
            "calls": sum(len(each.processor.streams) for each in server.protocols),
            "bytes held for nobody": server._unregistered,
            "tasks of asyncio": len(asyncio.all_tasks(remote._gate._loop)),
            "tasks of Trio": trio.lowlevel.current_statistics().tasks_living,
            "tokens": len(sessions._tokens),
            "connections that speak for plugins": len(sessions._of_connection),
            "registrations": sum(sessions._registered.values()),
            # The store's readers keep some, as many as read at once.
            "descriptors": max(0, _descriptors() - self._descriptors - READERS),
        }

    async def play(self, story: Story) -> None:
        """Tells a story. Raises Finding."""
        self._totals.kinds[story.kind] = self._totals.kinds.get(story.kind, 0) + 1
        _forget_peak()
        before = _memory("VmRSS")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._health, story.kind)
            for _ in range(story.peers):
                nursery.start_soon(self._peer, story)
        await self._settled()
        await self._health(story.kind)
        taken = _memory("VmHWM") - before
        if taken > self._totals.peak:
            self._totals.peak, self._totals.peak_of = taken, story.kind
        if taken > PEAK_BYTES:
            raise Finding(f"memory rose by {taken >> 20} MiB")
        self._totals.stories += 1
        if self._totals.stories % LOOK_EVERY == 0:
            await self._block()
            self._look_at_memory()
        if self._complaints:
            raise Finding("; ".join(self._complaints))

    def _look_at_memory(self) -> None:
        gc.collect()
        now = _memory("VmRSS")
        if self._memory is None:
            if self._totals.stories >= WARM_STORIES:
                self._memory = now
        elif now - self._memory > GROWTH_BYTES:
            raise Finding(f"memory has grown by {(now - self._memory) >> 20} MiB since the first {WARM_STORIES} stories")

    # ---- the honest peer -----------------------------------------------------------------------------------------------------

    async def _health(self, kind: str = "") -> None:
        begun = time.monotonic()
        with trio.move_on_after(NEIGHBOUR_SECONDS):
            answer = await self._honest.call("Health", b"")
            if answer.status != 0 or self._honest.closed:
                raise Finding(f"the honest peer was answered {answer}")
            taken = time.monotonic() - begun
            self._honest.answers = {self._exchange: self._honest.answers[self._exchange]}
            if taken > self._totals.slowest:
                self._totals.slowest, self._totals.slowest_of = taken, kind
            return
        raise Finding(f"the honest peer was not answered within {NEIGHBOUR_SECONDS:g} s")

    async def _block(self) -> None:
        """A block of the honest plugin, until it is on the chain. Ids are made of one byte: there are so many."""
        self._height += 1
        if self._height > 200:
            return
        await self._honest.send(self._exchange, framed(block(self._height)))
        with trio.move_on_after(SETTLE_SECONDS):
            while True:
                tip = self._runtime.chains["dev"].tip
                if tip is not None and tip.height >= self._height:
                    return
                await trio.sleep(0.001)
        raise Finding(f"block {self._height} of the honest plugin did not come to the chain: {self._runtime.plugins[HONEST]}")

    # ---- the peers of a story ------------------------------------------------------------------------------------------------

    async def _peer(self, story: Story) -> None:
        stream = await trio.open_unix_socket(str(self._path))
        heard = Heard()
        async with stream, trio.open_nursery() as nursery:
            if story.reads:
                nursery.start_soon(self._read, stream, heard)
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                try:
                    for step in story.steps:
                        await stream.send_all(step)
                except trio.BrokenResourceError:
                    pass  # it was cut, as it may be
            if scope.cancelled_caught and story.reads:
                raise Finding("the server takes nothing any more, and does not cut the peer")
            if story.expected:
                await self._answered(story, heard)
            if story.leaves == "end":
                with suppress(trio.BrokenResourceError):
                    await stream.send_eof()
                with trio.move_on_after(ANSWER_SECONDS) as scope:
                    if story.reads:
                        await heard.over.wait()
                    else:
                        await self._read(stream, heard)
                if scope.cancelled_caught:
                    raise Finding("the peer ended its side, and the server keeps the connection")
            nursery.cancel_scope.cancel()
        self._totals.frames += heard.frames
        if heard.wrong:
            raise Finding(f"the server sent what is no HTTP/2: {heard.wrong}")

    @staticmethod
    async def _read(stream: trio.SocketStream, heard: Heard) -> None:
        try:
            while data := await stream.receive_some(1 << 16):
                heard.take(data)
        except trio.BrokenResourceError:
            pass
        heard.over.set()
        heard.news.set()

    async def _answered(self, story: Story, heard: Heard) -> None:
        with trio.move_on_after(ANSWER_SECONDS):
            while not heard.over.is_set() and story.expected.keys() - heard.ended:
                heard.news = trio.Event()
                if story.expected.keys() - heard.ended:
                    await heard.news.wait()
        self._totals.sound_calls += len(story.expected)
        for stream, status in story.expected.items():
            said = heard.headers.get(stream, {}).get("grpc-status")
            if said != str(status) or stream not in heard.ended:
                raise Finding(f"call {stream} of a sound story has to end with status {status}: {heard.headers.get(stream)}")

    async def _settled(self) -> None:
        deadline = trio.current_time() + SETTLE_SECONDS
        while (levels := self._levels()) != self._base:
            if trio.current_time() > deadline:
                left = {
                    name: f"{value} instead of {self._base[name]}" for name, value in levels.items() if value != self._base[name]
                }
                raise Finding(f"left behind: {left}")
            await trio.sleep(0.001)


class Heard:
    """What the server said to one peer."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 1 << 32
        self._block: list[Any] = []
        self.headers: dict[int, dict[str, str]] = {}
        self.ended: set[int] = set()
        self.frames = 0
        self.wrong = ""
        self.over = trio.Event()
        self.news = trio.Event()

    def take(self, data: bytes) -> None:
        """So many more bytes."""
        self._data += data
        while not self.wrong and len(self._data) >= 9:
            try:
                frame, length = Frame.parse_frame_header(memoryview(bytes(self._data[:9])), strict=True)
                if len(self._data) < 9 + length:
                    return
                frame.parse_body(memoryview(bytes(self._data[9 : 9 + length])))
                del self._data[: 9 + length]
                self.frames += 1
                self._hear(frame)
            except (HyperframeError, ValueError, Finding) as error:
                self.wrong = repr(error)
            except Exception as error:  # whatever hpack has
                self.wrong = f"a header block ({error!r})"

    def _hear(self, frame: Any) -> None:
        if self._block and not isinstance(frame, ContinuationFrame):
            raise Finding(f"{frame!r} inside a header block")
        if isinstance(frame, HeadersFrame | ContinuationFrame):
            self._block.append(frame)
            if "END_HEADERS" in frame.flags:
                headers = self._decoder.decode(b"".join(each.data for each in self._block))
                first = self._block[0]
                self._block.clear()
                told = self.headers.setdefault(first.stream_id, {})
                told.update((str(name), str(value)) for name, value in headers)
                if "END_STREAM" in first.flags:
                    self.ended.add(first.stream_id)
        elif (isinstance(frame, DataFrame) and "END_STREAM" in frame.flags) or isinstance(frame, RstStreamFrame):
            self.ended.add(frame.stream_id)
        elif isinstance(frame, GoAwayFrame):
            self.headers.setdefault(0, {})["goaway"] = str(frame.error_code)
        self.news.set()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _forget_peak() -> None:
    """VmHWM begins anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{what}:"))


class _Listener(logging.Handler):
    """Takes errors that were only logged."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints
        self._text = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Notes one."""
        self._complaints.append(f"logged by {record.name}: {self._text.format(record)}")


@contextmanager
def _listening(complaints: list[str]) -> Iterator[None]:
    """Notes what would be an exception that nobody has."""
    listener = _Listener(complaints)
    loggers = [logging.getLogger(name) for name in ("supervm_rt", "grpclib", "asyncio", "trio", "trio-asyncio")]
    hook = sys.unraisablehook

    def note(unraisable: Any) -> None:
        complaints.append(f"nobody had it: {unraisable.exc_value!r} in {unraisable.object!r}")

    for logger in loggers:
        logger.addHandler(listener)
    sys.unraisablehook = note
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeHandler(listener)


@asynccontextmanager
async def judging(totals: Totals) -> AsyncGenerator[Judge, None]:
    """A node with its honest peer. Raises Finding where its end is not clean."""
    complaints: list[str] = []
    with tempfile.TemporaryDirectory(prefix="supervm-") as name, _listening(complaints):
        path = Path(name, "socket")
        config = RuntimeConfig(
            store=Path(name, "store.db"),
            plugins=(),
            policy=PolicyLevel.DEV,
            listen=(UnixAddress(path),),
            remote=LIMITS,
            restarts=RESTARTS,
            rejection_limit=1 << 30,
        )
        async with open_runtime(config) as runtime, await trio.open_unix_socket(str(path)) as stream:
            judge = Judge(runtime, path, RawPeer(stream), complaints, totals)
            await judge.begin()
            yield judge
    if complaints:
        raise Finding("; ".join(complaints))


def play(stories: list[Story], totals: Totals | None = None) -> str:
    """Tells stories to one node. Empty, or what was found."""

    async def main() -> None:
        async with judging(totals if totals is not None else Totals()) as judge:
            for story in stories:
                await judge.play(story)

    return found_by(main)


def found_by(main: Any) -> str:
    """Runs this; empty, or the finding."""
    try:
        trio.run(main)
    except BaseException as error:
        findings = list(_findings(error))
        if not findings:
            raise
        return "; ".join(map(str, findings))
    return ""


def _findings(error: BaseException) -> Iterator[Finding]:
    if isinstance(error, Finding):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _findings(each)


__all__ = ["Finding", "Judge", "Totals", "found_by", "judging", "play"]
