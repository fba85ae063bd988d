"""grpclib's server with bounds and speed, where grpclib and h2 offer no hook for them.

This file looks into both, and so is bound to the versions that it was written for: see ``versions``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import sniffio
import trio
from grpclib.config import Configuration
from grpclib.const import Handler as Method
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.events import _DispatchServerEvents
from grpclib.exceptions import GRPCError
from grpclib.metadata import decode_timeout
from grpclib.protocol import Connection, EventsProcessor, H2Protocol
from grpclib.protocol import Stream as WireStream
from grpclib.server import Handler, request_handler
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamReset
from h2.exceptions import FrameTooLargeError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamState
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, RstStreamFrame, WindowUpdateFrame

from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.transports.remote.messages import PREFIX_BYTES, Buffer, MessageBuffer
from supervm_rt.transports.remote.peers import Peer

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 8 << 20
MAX_FRAME_BYTES = 256 << 10
"""Of a frame that a peer may send."""
MOST_UNSENT = 1 << 20
"""Bytes that wait for a peer which reads nothing, before its connection is cut: what HTTP/2 itself answers has no other bound."""
_HEADER_LIST_BYTES = 16 << 10
_CONTROL_BYTES = 2 * _HEADER_LIST_BYTES
"""Of a frame that carries no data, and of a header block in however many frames: h2 keeps it until it is whole."""
_HEADER_TABLE_BYTES = 4_096
"""Of the table for what is sent: as much of it is kept, whatever the peer allows."""
_FRAME_HEADER_BYTES = 9
_DATA = 0
_UPDATES_PER_FRAME = 2
"""Of windows, for a frame of data that a peer was sent: its stream's and its connection's."""
_SENT_AT_ONCE = 256 << 10
_MOST_PARTS = 1_024
"""Of one write: the kernel's own bound."""
_RECEIVED_AT_ONCE = 256 << 10
_READS_AT_ONCE = 4
_MANY_BYTES = 32 << 10
_RESET_COST = 10
"""Frames without data that a stream's reset counts as, whichever side resets it: a call was begun for nothing."""
_TIMEOUT, _BINARY = "grpc-timeout", "-bin"
_LONGEST_TIMEOUT = 9
"""Characters: eight digits and a unit."""
_SHORTEST_TIMEOUT = 0.01
"""Seconds; a shorter time counts as this."""
_LAST_WORDS = 5.0
"""Seconds for a peer to take what was written before its connection was closed."""
_SENDABLE = {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE}
_RECEIVABLE = {StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL}

_logger = logging.getLogger("supervm_rt")


class Flood(ProtocolError):
    """The peer sends more of what carries no data than is allowed."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class BoundedEncoder(Encoder):
    """hpack's, with a table that does not grow as the peer likes."""

    @property
    def header_table_size(self) -> int:
        """Bytes, as HPACK counts them."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        value = min(value, _HEADER_TABLE_BYTES)
        self.header_table.maxsize = value
        if self.header_table.resized:
            self.table_size_changes.append(value)


class BoundedH2(H2Connection):
    """h2 without a text of every frame, with a short way for frames of data, and with a bound on all other frames."""

    MAX_CLOSED_STREAMS = 1_024

    def __init__(self, config: H2Configuration, limits: RemoteLimits) -> None:
        super().__init__(config)
        self.local_settings = Settings(
            client=config.client_side,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIST_BYTES,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        self.decoder.max_header_list_size = _HEADER_LIST_BYTES
        self.encoder = BoundedEncoder()
        self.max_inbound_frame_size = self.local_settings.max_frame_size
        self._unread = 0
        """Bytes that are to come of a frame of data, and belong to the stream ``_reading``."""
        self._reading = 0
        self._rate = limits.control_rate
        self._burst = self._left = 20 * limits.control_rate
        self._at = time.monotonic()
        self.updates_due = 0
        """Updates of windows that the peer may send for what was sent to it, and that are not counted therefore."""

    def receive_data(self, data: bytes | memoryview) -> list[Event]:  # type: ignore[override]
        """As h2 does it. What events of data hold may be a part of ``data``, and of a frame."""
        buffer = self.incoming_buffer
        buffer.max_frame_size = self.max_inbound_frame_size
        events: list[Event] = []
        try:
            if not buffer._data and not buffer._preamble_len:
                data = memoryview(data)[self._receive_plain_data(memoryview(data), events) :]
            buffer.add_data(data)
            while True:
                if buffer._data:
                    with memoryview(buffer._data) as view:
                        place = self._receive_plain_data(view, events, keep=True)
                    del buffer._data[:place]
                self._check_length()
                frame = next(buffer, None)
                if frame is None:
                    self._check_header_block()
                    return events
                self._count(frame)
                found = self._receive_frame(frame)
                for event in found:
                    if isinstance(event, StreamReset):
                        self._charge(_RESET_COST)
                events.extend(found)
        except ProtocolError as error:
            with contextlib.suppress(ProtocolError):
                self._terminate_connection(error.error_code)
            raise
        except Exception as error:  # what h2 did not foresee: padding, names that are no ASCII, a broken header block
            with contextlib.suppress(ProtocolError):
                self._terminate_connection(ErrorCodes.PROTOCOL_ERROR)
            raise ProtocolError(f"a frame that cannot be read ({error!r})") from error

    @property
    def kept(self) -> int:
        """Bytes of frames, and of header blocks, that are not whole."""
        buffer = self.incoming_buffer
        return len(buffer._data) + sum(len(frame.data) for frame in buffer._headers_buffer)

    def _check_length(self) -> None:
        """Of the next frame, before its body is there."""
        data = self.incoming_buffer._data
        if len(data) < _FRAME_HEADER_BYTES:
            return
        length = int.from_bytes(data[:3])
        if data[3] == _DATA and length > self.max_inbound_frame_size:
            raise FrameTooLargeError(f"a frame of data of {length} bytes")
        if data[3] != _DATA and length > _CONTROL_BYTES:
            raise Flood(f"a frame of type {data[3]}, which carries no data, of {length} bytes")

    def _check_header_block(self) -> None:
        length = sum(len(frame.data) for frame in self.incoming_buffer._headers_buffer)
        if length > _CONTROL_BYTES:
            raise Flood(f"a header block of {length} bytes")

    def _receive_plain_data(self, data: memoryview, events: list[Event], *, keep: bool = False) -> int:
        """Takes frames of data that neither pad nor end an open stream, which is nearly all there is, and not only whole ones.
        Says how many bytes that were. ``keep``: events hold copies."""
        place, end = 0, len(data)
        if self._unread:
            place = min(self._unread, end)
            self._unread -= place
            events.append(_received(self._reading, data[:place], keep))
        if self.incoming_buffer._headers_buffer or self.state_machine.state is not ConnectionState.SERVER_OPEN:
            return place
        while end - place >= _FRAME_HEADER_BYTES and data[place + 3] == _DATA and data[place + 4] == 0:
            length = int.from_bytes(data[place : place + 3])
            stream = self.streams.get(int.from_bytes(data[place + 5 : place + 9]))
            if (
                stream is None
                or length == 0
                or length > self.max_inbound_frame_size
                or stream.state_machine.state not in _RECEIVABLE
                or not stream.state_machine.headers_received
                or stream._expected_content_length is not None
            ):
                break
            self._inbound_flow_control_window_manager.window_consumed(length)
            stream._inbound_window_manager.window_consumed(length)
            place += _FRAME_HEADER_BYTES
            there = min(length, end - place)
            if there:
                events.append(_received(stream.stream_id, data[place : place + there], keep))
            place += there
            self._unread, self._reading = length - there, stream.stream_id
        return place

    def _count(self, frame: Frame) -> None:
        if isinstance(frame, WindowUpdateFrame) and self.updates_due > 0:  # a peer that takes a lot sends many
            self.updates_due -= 1
            return
        if isinstance(frame, DataFrame) and (frame.data or "END_STREAM" in frame.flags):
            return
        self._charge(1)

    def _charge(self, cost: int) -> None:
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._rate, self._burst) - cost
        self._at = now
        if self._left < 0:
            raise Flood("too many frames that carry no data")

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """As h2 does it, without the text for its log."""
        events: list[Event]
        try:
            frames, events = self._frame_dispatch_table[frame.__class__](frame)
        except StreamClosedError as error:
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            answer = RstStreamFrame(error.stream_id)
            answer.error_code = error.error_code
            self._prepare_for_sending([answer])
            events = error._events
        except StreamIDTooLowError as error:
            if self._stream_is_closed_by_end(error.stream_id):
                raise StreamClosedError(error.stream_id) from error
            if not self._stream_is_closed_by_reset(error.stream_id):
                raise
            answer = RstStreamFrame(error.stream_id)
            answer.error_code = ErrorCodes.STREAM_CLOSED
            self._prepare_for_sending([answer])
            events = []
        else:
            self._prepare_for_sending(frames)
        return events


def _received(stream: int, data: memoryview, keep: bool) -> DataReceived:
    body = bytes(data) if keep else data
    return DataReceived(stream_id=stream, data=cast("bytes", body), flow_controlled_length=len(data))


def _unless_gone(method: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """A method whose peer may go before it is answered, which grpclib would take for a fault of the method."""

    async def call(stream: Any) -> None:
        try:
            await method(stream)
        except StreamClosedError:
            raise GRPCError(Status.CANCELLED, "the peer has gone") from None

    return call


class BoundedServer:
    """What all connections share. It accepts none by itself: see ``listening``."""

    def __init__(
        self,
        services: Sequence[Any],
        *,
        codec: CodecBase,
        limits: RemoteLimits,
        large: frozenset[str],
        refused: Callable[[Peer, str], None],
        lost: Callable[[BoundedProtocol], None],
    ) -> None:
        """``large``: paths of the methods whose messages may be of ``limits.message``. ``refused`` hears why a peer was cut,
        ``lost`` of every connection that ended."""
        self.mapping: dict[str, Method] = {}
        for service in services:
            methods = service.__mapping__()
            self.mapping.update((path, method._replace(func=_unless_gone(method.func))) for path, method in methods.items())
        self.codec = codec
        self.limits = limits
        self.dispatch = _DispatchServerEvents()
        self.refused = refused
        self.lost = lost
        self.protocols: set[BoundedProtocol] = set()
        self.received = memoryview(bytearray(_RECEIVED_AT_ONCE))
        self._large = large
        self._unregistered = 0
        self.config = Configuration(
            _keepalive_time=limits.keepalive,
            _keepalive_timeout=limits.keepalive_timeout,
            _keepalive_permit_without_calls=True,
            _http2_max_pings_without_data=0,
            _http2_min_sent_ping_interval_without_data=limits.keepalive / 2,
            http2_connection_window_size=CONNECTION_WINDOW,
            http2_stream_window_size=STREAM_WINDOW,
        ).__for_server__()
        self.h2_config = H2Configuration(
            client_side=False,
            header_encoding="ascii",
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )

    def limit_of(self, path: str) -> int:
        """The largest message of a method."""
        return self.limits.message if path in self._large else self.limits.request

    def account(self, connection: BoundedConnection, size: int) -> None:
        """Counts what is held for peers that nobody knows, and cuts the one that brings it above the bound."""
        self._unregistered += size
        if size > 0 and self._unregistered > self.limits.unregistered_bytes:
            connection.owner.cut("too much is held already for peers that have not registered")

    def check(self) -> None:
        """Ends connections for what they do not do. To be called once a second or so."""
        now = time.monotonic()
        for protocol in list(self.protocols):
            protocol.check(now)

    def admit(self, peer: Peer) -> str:
        """Why one more connection of this peer is not let in; empty: it is."""
        most = self.limits.connections_per_peer
        if sum(protocol.peer.identity == peer.identity for protocol in self.protocols) >= most:
            return f"it has {most} connections already"
        return ""

    def close(self) -> None:
        """Cuts all connections."""
        for protocol in list(self.protocols):
            transport = getattr(protocol.connection, "_transport", None)
            if transport is not None:
                transport.abort()


class Signal(asyncio.Event):
    """An event that tasks of both loops can wait for, which run on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self._parked = trio.lowlevel.ParkingLot()

    def set(self) -> None:
        """Wakes whoever waits."""
        super().set()
        if self._parked:
            self._parked.unpark_all()

    async def wait_anywhere(self) -> None:
        """As ``wait``, from asyncio or Trio."""
        if sniffio.current_async_library() == "trio":
            if not self.is_set():
                await self._parked.park()
        else:
            await self.wait()


class BoundedStream(WireStream):
    """One HTTP/2 stream of a server."""

    taken_at = 0.0
    """When the peer last took something, or was asked to for the first time since."""
    waits = False
    """It is waited for the peer to take something."""
    begun_at: float | None = None
    """When it was first seen that a message had begun and nothing else was there."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.window_updated = Signal()

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        """As grpclib does it, with a buffer of messages."""
        self.id = stream_id
        owner = cast("BoundedConnection", connection)
        self.buffer: Any = MessageBuffer(partial(connection.ack, stream_id), 0, owner.account)
        connection.streams_started += 1
        self.created = connection.last_stream_created = time.monotonic()

    def messages(self) -> MessageBuffer:
        """What the peer sent."""
        return cast("MessageBuffer", self.buffer)

    async def send_headers(self, headers: list[tuple[str, str]], end_stream: bool = False) -> None:
        """As grpclib does it; a connection that is over is told as a closed stream."""
        await self._writable()
        try:
            await super().send_headers(headers, end_stream=end_stream)
        except StreamClosedError:
            raise
        except ProtocolError:
            raise StreamClosedError(self.id or 0) from None

    async def _writable(self) -> None:
        ready = self.connection.write_ready
        while not ready.is_set():  # who was woken first may have filled it again
            await self._wait(cast("Signal", ready))

    async def _wait(self, event: Signal) -> None:
        self.waits, self.taken_at = True, time.monotonic()
        try:
            await event.wait_anywhere()
        finally:
            self.waits = False

    async def send_data(self, data: Buffer, end_stream: bool = False) -> None:
        """As grpclib has it."""
        await self.send_parts([data], len(data))
        if end_stream:
            await self.end()

    async def send_messages(self, messages: Sequence[Buffer]) -> None:
        """Sends messages one behind the other, many to a frame. From asyncio or Trio."""
        parts: list[Buffer] = []
        size = 0
        for message in messages:
            parts += (b"\0" + len(message).to_bytes(4), message)
            size += PREFIX_BYTES + len(message)
            if size >= _SENT_AT_ONCE:
                await self.send_parts(parts, size)
                parts, size = [], 0
        if parts:
            await self.send_parts(parts, size)

    async def send_parts(self, parts: Sequence[Buffer], left: int) -> None:
        """Sends so many bytes as the windows allow. From asyncio or Trio; cancelling it is what bounds its waiting.

        Frames are written without h2, whose windows are kept, and from where the parts lie.
        """
        assert self.id is not None
        http = self._h2_connection
        source = _Source(parts)
        while left:
            await self._writable()
            stream = http.streams.get(self.id)
            if stream is None or stream.state_machine.state not in _SENDABLE or self.connection.is_closing():
                raise StreamClosedError(self.id)
            window = min(stream.outbound_flow_control_window, http.outbound_flow_control_window)
            if window <= 0:
                self.window_updated.clear()
                await self._wait(cast("Signal", self.window_updated))
                continue
            now = min(window, _SENT_AT_ONCE, left)
            frames: list[Buffer] = []
            unsent = now
            while unsent:
                length = min(unsent, http.max_outbound_frame_size)
                frames.append(length.to_bytes(3) + b"\0\0" + self.id.to_bytes(4))
                source.take(length, frames)
                unsent -= length
                cast("BoundedH2", http).updates_due += _UPDATES_PER_FRAME
            stream.outbound_flow_control_window -= now
            http.outbound_flow_control_window -= now
            self.connection.flush()
            cast("BoundedConnection", self.connection).write(frames)
            self.data_sent += now
            self.connection.data_sent += now
            self.connection.data_send_process()
            left -= now


class _Source:
    """Bytes that lie in several places, taken in order."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = parts
        self._index = 0
        self._offset = 0

    def take(self, length: int, into: list[Buffer]) -> None:
        """Appends the next so many bytes."""
        while length:
            part = self._parts[self._index]
            there = len(part) - self._offset
            if there <= length:
                into.append(part if self._offset == 0 else memoryview(part)[self._offset :])
                self._index += 1
                self._offset = 0
                length -= there
            else:
                into.append(memoryview(part)[self._offset : self._offset + length])
                self._offset += length
                length = 0


class BoundedConnection(Connection):
    """One connection. ``registered``: a plugin was registered over it."""

    registered = False
    held = 0
    calls = 0
    """Calls that were begun."""

    def __init__(
        self, http: H2Connection, transport: asyncio.Transport, *, config: Configuration, owner: BoundedProtocol
    ) -> None:
        super().__init__(http, transport, config=config)
        self.owner = owner
        self.write_ready = Signal()
        self.write_ready.set()
        plain = isinstance(transport, _SelectorSocketTransport)
        self._socket: socket.socket | None = cast("Any", transport)._sock if plain else None
        """None: what is sent goes through TLS."""
        # Where it is written from where it lies, asyncio keeps no more than the rest of it.
        transport.set_write_buffer_limits(high=0 if plain else _SENT_AT_ONCE)

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> BoundedStream:
        """As grpclib does it."""
        return BoundedStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def flush(self) -> None:
        """Cuts a peer that lets answers pile up."""
        if self.is_closing():
            return
        super().flush()
        if not self.write_ready.is_set() and self._transport.get_write_buffer_size() > MOST_UNSENT:
            self.owner.cut("it reads none of the answers that it causes")

    def write(self, parts: Sequence[Buffer]) -> None:
        """Writes frames; what the socket does not take now waits in asyncio's buffer."""
        transport = self._transport
        if self._socket is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                sent = self._socket.sendmsg(parts[:_MOST_PARTS])
            except OSError:  # no room, or what asyncio will meet as well
                sent = 0
            index = 0
            while index < len(parts) and sent >= len(parts[index]):
                sent -= len(parts[index])
                index += 1
            if index == len(parts):
                return
            parts = [memoryview(parts[index])[sent:], *parts[index + 1 :]]
        transport.write(b"".join(parts))

    def ack(self, stream_id: int, size: int) -> None:
        """Gives bytes back to the windows."""
        if size and not self.is_closing() and self._connection.state_machine.state is not ConnectionState.CLOSED:
            super().ack(stream_id, size)

    def close(self) -> None:
        """As grpclib does it; a peer that does not take the last words is not waited for."""
        transport = getattr(self, "_transport", None)
        waits = transport is not None and not transport.is_closing() and transport.get_write_buffer_size()
        super().close()
        if transport is not None and waits:
            asyncio.get_running_loop().call_later(_LAST_WORDS, transport.abort)

    def _ping(self) -> None:
        """As grpclib does it; a peer that does not answer is cut, and told of."""
        waited = self._close_by_ping_handler
        super()._ping()
        closing = self._close_by_ping_handler
        if closing is not None and closing is not waited:
            closing.cancel()
            within = self._config._keepalive_timeout
            self._close_by_ping_handler = asyncio.get_running_loop().call_later(
                within, self.owner.cut, f"it answered no ping within {within:g} s"
            )

    def account(self, size: int) -> None:
        """So many more (or fewer) bytes are held for this connection."""
        self.held += size
        if not self.registered:
            self.owner.server.account(self, size)

    def register(self) -> None:
        """Holds it no longer against what those may hold that nobody knows."""
        if not self.registered:
            self.registered = True
            self.owner.server.account(self, -self.held)


def _text(event: RequestReceived) -> list[tuple[str, str]]:
    return cast("list[tuple[str, str]]", event.headers)


def _timeout(said: str) -> str:
    """A grpc-timeout as grpclib can take it: it has no answer of its own for a time that is over before the call has begun, nor
    for more digits than gRPC allows."""
    if len(said) > _LONGEST_TIMEOUT:
        return "too long"
    try:
        return said if decode_timeout(said) > _SHORTEST_TIMEOUT else f"{round(1000 * _SHORTEST_TIMEOUT)}m"
    except ValueError:
        return said


class BoundedProcessor(EventsProcessor):
    """Hands on what h2 found."""

    def process(self, event: Event) -> None:
        """As grpclib does it; what it does not know is nothing to it."""
        if hasattr(self, "processors") and event.__class__ in self.processors:
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        """Begins a call."""
        headers = dict(_text(event))
        connection = cast("BoundedConnection", self.connection)
        if ":method" not in headers or ":path" not in headers:
            with contextlib.suppress(ProtocolError):
                connection._connection.reset_stream(event.stream_id or 0, error_code=ErrorCodes.PROTOCOL_ERROR)
            return
        if len(self.streams) >= 2 * connection.owner.server.limits.streams:
            # Those that were reset are none of HTTP/2's any more, but each is a task until it has ended.
            with contextlib.suppress(ProtocolError):
                connection._connection.reset_stream(event.stream_id or 0, error_code=ErrorCodes.REFUSED_STREAM)
            return
        if _TIMEOUT in headers or any(name.endswith(_BINARY) for name in headers):
            # No call reads binary metadata, and where it is none grpclib has no answer.
            said = [(name, _timeout(value) if name == _TIMEOUT else value) for name, value in _text(event)]
            event.headers = cast("Any", [header for header in said if not header[0].endswith(_BINARY)])
        connection.calls += 1
        connection.owner.busy_at = max(connection.owner.busy_at, time.monotonic())
        super().process_request_received(event)
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            cast("BoundedStream", stream).messages()._limit = connection.owner.server.limit_of(headers[":path"])


class BoundedHandler(Handler):
    """Runs the calls of one connection."""

    connection: BoundedConnection

    def accept(self, stream: WireStream, headers: list[tuple[str, str]], release_stream: Callable[[], Any]) -> None:
        """Begins a call; its stream is let go also where the call is cancelled before its first step."""
        self.__gc_step__()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                with contextlib.suppress(ProtocolError):
                    release_stream()

        task = self.loop.create_task(
            request_handler(self.mapping, stream, headers, self.codec, self.status_details_codec, self.dispatch, release)
        )
        task.add_done_callback(lambda _: release())
        self._tasks[stream] = task

    def cancel(self, stream: WireStream) -> None:
        """Ends a call that its peer reset."""
        task = self._tasks.pop(stream, None)
        if task is not None:
            task.cancel()
            self._cancelled.add(task)


class BoundedProtocol(H2Protocol, asyncio.BufferedProtocol):
    """One accepted connection."""

    handler: BoundedHandler
    connection: BoundedConnection
    peer: Peer

    def __init__(self, server: BoundedServer, identify: Callable[[asyncio.BaseTransport], Peer | None]) -> None:
        """``identify``: says who is there, once that can be known; None: it was refused."""
        super().__init__(BoundedHandler(server.mapping, server.codec, None, server.dispatch), server.config, server.h2_config)
        self.server = server
        self._identify = identify
        self.made_at = self.busy_at = time.monotonic()
        self._cut = False
        self._why = ""
        self._kept = 0
        """Bytes of frames that are not whole, as they were accounted for."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As grpclib does it, with bounded settings."""
        stream = cast("asyncio.Transport", transport)
        peer = self._identify(transport)
        why = self.server.admit(peer) if peer is not None else ""
        if peer is None or why:
            if peer is not None:
                self.server.refused(peer, why)
            self._cut = True
            stream.abort()
            return
        self.peer = peer
        http = BoundedH2(self.h2_config, self.server.limits)
        http.initiate_connection()
        http.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self.connection = BoundedConnection(http, stream, config=self.config, owner=self)
        self.connection.flush()
        self.connection.initialize()
        self.processor = BoundedProcessor(self.handler, self.connection)
        self.server.protocols.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: one place for all connections, since they are taken out of it at once."""
        return self.server.received

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes are there. Where they are many, more may have come, which asyncio would take much longer for."""
        place = self.server.received
        self.data_received(place[:nbytes])
        source = self.connection._socket if hasattr(self, "connection") else None
        for _ in range(_READS_AT_ONCE - 1):
            if nbytes < _MANY_BYTES or self._cut or source is None or self.connection.is_closing():
                return
            try:
                nbytes = source.recv_into(place)
            except OSError:  # nothing more, or what asyncio will meet as well
                return
            self.data_received(place[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Feeds h2, and ends a connection that breaks the protocol."""
        if self._cut:
            return
        try:
            events = self.connection.feed(cast("bytes", data))
        except ProtocolError as error:
            with contextlib.suppress(Exception):
                self.connection.flush()  # GOAWAY with the reason
            self._tell(f"it breaks HTTP/2: {error}")
            self.processor.close("Protocol error")
            return
        kept = cast("BoundedH2", self.connection._connection).kept
        if kept != self._kept:
            change, self._kept = kept - self._kept, kept
            self.connection.account(change)
        if self._cut:
            return
        self.connection.flush()
        for event in events:
            self.processor.process(event)
        if not self.connection.is_closing():
            self.connection.flush()

    @property
    def cut_for(self) -> str:
        """That the host ended it and why, for whoever spoke over it; empty: it did not."""
        return f"its connection was cut: {self._why}" if self._why else ""

    def _tell(self, why: str) -> None:
        self._why = why
        self.server.refused(self.peer, why)

    def cut(self, why: str) -> None:
        """Ends the connection at once."""
        if not self._cut:
            self._cut = True
            self._tell(why)
            transport = getattr(self.connection, "_transport", None)
            if transport is not None:
                transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Ends its calls."""
        if self not in self.server.protocols:  # it was not let in
            return
        self.server.protocols.discard(self)
        self.server.lost(self)
        super().connection_lost(exc)
        if not self.connection.registered:
            self.server.account(self.connection, -self.connection.held)
        self.connection.registered = True  # what is let go from now on is not counted twice

    def check(self, now: float) -> None:
        """Ends a connection for what it does not do."""
        limits = self.server.limits
        streams = list(self.processor.streams.values())
        if streams:
            self.busy_at = now
        elif not self.connection.calls and now - self.made_at > limits.register:
            self.cut(f"it made no call within {limits.register:g} s")
        elif now - self.busy_at > limits.idle:
            self.cut(f"it made no call for {limits.idle:g} s")
        for stream in streams:
            bounded = cast("BoundedStream", stream)
            if bounded.waits and now - bounded.taken_at > limits.stalled:
                self.cut(f"it took nothing for {limits.stalled:g} s")
            buffer = bounded.messages()
            if not buffer.starves:
                bounded.begun_at = None
            elif bounded.begun_at is None:
                bounded.begun_at = now
            elif now - bounded.begun_at > limits.message_time:
                buffer.fail(
                    GRPCError(Status.DEADLINE_EXCEEDED, f"a message did not come to its end within {limits.message_time:g} s")
                )
