"""A node that listens, and peers that speak HTTP/2 to it as they are told, right or wrong."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PolicyLevel, RestartLimits, Runtime, RuntimeConfig
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.limits import RemoteLimits

SERVICE = "/supervm.plugin.PluginHost/"
QUICK = RestartLimits(first_delay=0.01, longest_delay=0.02, failures=100, window=60)
SECONDS = 20.0


class Seen(list[HostEvent]):
    """The events of a node."""

    def of(self, kind: EventKind) -> list[HostEvent]:
        return [event for event in self if event.kind is kind]

    def refusals(self) -> list[str]:
        return [event.message for event in self.of(EventKind.REMOTE_REFUSED)]

    async def until(self, kind: EventKind, text: str = "", seconds: float = SECONDS) -> HostEvent:
        with trio.fail_after(seconds):
            while True:
                for event in self.of(kind):
                    if text in event.message:
                        return event
                await trio.sleep(0.005)


@contextmanager
def short_folder() -> Iterator[Path]:
    """The path of a socket has a bound that pytest's folders may pass."""
    with tempfile.TemporaryDirectory(prefix="supervm-") as name:
        yield Path(name)


@dataclass
class Served:
    """A node that listens on a Unix socket."""

    runtime: Runtime
    path: Path
    store: Path
    seen: Seen


@asynccontextmanager
async def serving(
    folder: Path,
    *plugins: PluginConfig,
    limits: RemoteLimits | None = None,
    policy: PolicyLevel = PolicyLevel.DEV,
    **more: Any,
) -> AsyncGenerator[Served, None]:
    seen = Seen()
    with short_folder() as short:
        config = RuntimeConfig(
            store=folder / "store.db",
            plugins=plugins,
            policy=policy,
            listen=more.pop("listen", None) or (UnixAddress(short / "socket"),),
            remote=limits or RemoteLimits(),
            restarts=more.pop("restarts", QUICK),
            **more,
        )
        async with supervm_rt.open_runtime(config, receivers=(seen.append,)) as runtime:
            yield Served(runtime, short / "socket", config.store, seen)


@dataclass
class Answer:
    """What came back on one stream."""

    messages: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None
    data: bytes = b""

    @property
    def status(self) -> int | None:
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def message(self) -> str:
        return self.headers.get("grpc-message", "").replace("%20", " ")


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


class RawPeer:
    """One connection. ``reads``: it takes what is sent to it."""

    def __init__(self, stream: trio.abc.Stream, *, handshake: bool = True) -> None:
        self.stream = stream
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.answers: dict[int, Answer] = {}
        self.closed = False
        self.goaway: int | None = None
        if handshake:
            self.http.initiate_connection()
            self.http.increment_flow_control_window((1 << 30) - (1 << 16))

    async def flush(self) -> None:
        await self.stream.send_all(self.http.data_to_send())

    async def begin(self, method: str, *, end: bool = False, more: tuple[tuple[str, str], ...] = ()) -> int:
        stream = self.http.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method if method.startswith("/") else SERVICE + method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            *more,
        ]
        self.http.send_headers(stream, headers, end_stream=end)
        self.answers[stream] = Answer()
        await self.flush()
        return stream

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        view = memoryview(data)
        while view or end:
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if view and room <= 0:
                await self.hear()
                continue
            part, view = view[:room], view[room:]
            self.http.send_data(stream, bytes(part), end_stream=end and not view)
            await self.flush()
            if not view:
                return

    async def hear(self) -> None:
        """Takes what is there, and answers as HTTP/2 asks."""
        try:
            data = await self.stream.receive_some(1 << 16)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.http.receive_data(data):
            answer = self.answers.get(getattr(event, "stream_id", None) or 0)
            if isinstance(event, ConnectionTerminated):
                self.goaway = int(event.error_code or 0)
            elif answer is None:
                continue
            elif isinstance(event, ResponseReceived | TrailersReceived):
                answer.headers.update((str(name), str(value)) for name, value in event.headers or ())
            elif isinstance(event, DataReceived):
                answer.data += event.data or b""
                self.http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                while len(answer.data) >= 5 and len(answer.data) >= (need := 5 + int.from_bytes(answer.data[1:5], "big")):
                    answer.messages.append(answer.data[5:need])
                    answer.data = answer.data[need:]
            elif isinstance(event, StreamEnded):
                answer.ended = True
            elif isinstance(event, StreamReset):
                answer.ended = True
                answer.reset = int(event.error_code or 0)
        try:
            await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.closed = True

    async def finished(self, stream: int) -> Answer:
        """The whole answer."""
        with trio.fail_after(SECONDS):
            while not self.answers[stream].ended and not self.closed:
                await self.hear()
        return self.answers[stream]

    async def said(self, stream: int, count: int = 1) -> Answer:
        """The answer, once it has so many messages or has ended."""
        with trio.fail_after(SECONDS):
            answer = self.answers[stream]
            while len(answer.messages) < count and not answer.ended and not self.closed:
                await self.hear()
        return answer

    async def call(self, method: str, message: bytes, more: tuple[tuple[str, str], ...] = ()) -> Answer:
        stream = await self.begin(method, more=more)
        await self.send(stream, framed(message), end=True)
        return await self.finished(stream)

    async def until_closed(self, seconds: float = SECONDS) -> None:
        with trio.fail_after(seconds):
            while not self.closed:
                await self.hear()


@asynccontextmanager
async def peer(path: Path, *, handshake: bool = True) -> AsyncGenerator[RawPeer, None]:
    async with await trio.open_unix_socket(str(path)) as stream:
        yield RawPeer(stream, handshake=handshake)
