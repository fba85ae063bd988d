"""The calls of PluginHost, and the standard services beside it (clauses R1 to R4, L1 to L3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import betterproto2
import trio
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.health.v1 import health_pb2
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.service import ServerReflection
from grpclib.server import Stream

from supervm_rt import _abi
from supervm_rt._abi import Frame, Message
from supervm_rt.chain.cursor import MAX_CHAINS
from supervm_rt.errors import CursorError, NotInStore, OperatorError, StoreError, SuperVMError
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Capability
from supervm_rt.transports.remote import wire
from supervm_rt.transports.remote._frames import LARGE_MESSAGE, tell
from supervm_rt.transports.remote.crossing import on_trio
from supervm_rt.transports.remote.fields import check
from supervm_rt.transports.remote.http2 import BoundedConnection, BoundedProtocol, BoundedStream
from supervm_rt.transports.remote.introduction import Event, Host, Introduction, Subscription
from supervm_rt.transports.remote.ir_messages import block_message
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.received import hear
from supervm_rt.transports.remote.sessions import Sessions
from supervm_rt.transports.remote.transport import MAX_FRAMES, Exchange, RemoteTransport

SERVICE = "supervm.plugin.PluginHost"
TOKEN = "supervm-session"
"""The metadata that carries a session token."""
LARGE_METHODS = frozenset({f"/{SERVICE}/BlockExchange"})
_HEALTH = "grpc.health.v1.Health"
_WATCH_SECONDS = 1.0
_SENT_AT_ONCE = 256 << 10
"""About so many bytes of events are encoded before they are sent."""
_UNBOUNDED = (1 << 63) - 1
HEARD_AT_ONCE = 256 << 10
"""About so many bytes of messages are read before their blocks are handed on."""
_READERS = 2
"""Threads that read large messages: few, so that whoever sends many of them takes none from what is written to the store."""
_LONGEST_LINE = 4_096
_LONGEST_NAME = 256
_MOST_ANSWERS = 1_024
_NO_ROUTE = "no route: this node has no way for transactions of this chain"

_logger = logging.getLogger("supervm_rt")


class Codec(CodecBase):
    """Messages of betterproto2 and of Google's protobuf alike; bytes for calls that read them by themselves."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """As the message does it."""
        return message if isinstance(message, bytes) else cast("bytes", message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Raises GRPCError for what is no such message."""
        if message_type is bytes:
            return data
        try:
            if issubclass(message_type, betterproto2.Message):
                check(data, message_type)
            return message_type.FromString(data)
        except Exception as error:  # each library has errors of its own, and some are not its own
            raise GRPCError(
                Status.INVALID_ARGUMENT, f"the request is no {message_type.__name__} ({error or type(error).__name__})"
            ) from None


def _connection(stream: Stream[Any, Any]) -> BoundedProtocol:
    return cast("BoundedConnection", stream._stream.connection).owner


def _token(stream: Stream[Any, Any]) -> str | None:
    value = stream.metadata.get(TOKEN) if stream.metadata is not None else None
    return value if isinstance(value, str) else None


class PluginHostService:
    """Every call is a task of the asyncio loop, and ends with its connection."""

    def __init__(self, sessions: Sessions, host: Host) -> None:
        self._sessions = sessions
        self._host = host
        self._readers = trio.CapacityLimiter(_READERS)

    def __mapping__(self) -> dict[str, Handler]:
        """For the server."""
        unary, streams, both = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM
        return {
            f"/{SERVICE}/Register": Handler(self.register, unary, wire.RegisterRequest, wire.RegisterResponse),
            f"/{SERVICE}/Heartbeat": Handler(self.heartbeat, unary, wire.HeartbeatRequest, wire.HeartbeatResponse),
            f"/{SERVICE}/StreamBlocks": Handler(self.stream_blocks, streams, wire.StreamBlocksRequest, bytes),
            f"/{SERVICE}/BlockExchange": Handler(self.block_exchange, both, bytes, bytes),
            f"/{SERVICE}/SubmitTx": Handler(self.submit_tx, unary, wire.SubmitTxRequest, wire.SubmitTxResponse),
            f"/{SERVICE}/Health": Handler(self.health, unary, wire.HealthRequest, wire.HealthResponse),
        }

    # ---- unary calls ---------------------------------------------------------------------------------------------------------

    async def register(self, stream: Stream[Any, Any]) -> None:
        """Lets a plugin in, or says why not: a refusal is an answer, not an error."""
        request = await _request(stream)
        protocol = _connection(stream)
        introduction = Introduction(
            name=request.name,
            version=request.version,
            chain=request.chain,
            capabilities=tuple(request.capabilities),
            manifest=request.manifest_json,
            revision=request.revision,
            peer=protocol.peer,
        )
        try:
            admission = await self._sessions.register(introduction, protocol)
        except SuperVMError as error:
            if self._host.ending:  # no word against the plugin, which may come to the node's next life
                raise GRPCError(Status.UNAVAILABLE, "the node is being ended; come again later") from None
            self._host.report(
                EventKind.REMOTE_REFUSED,
                f"{protocol.peer}: the registration of {request.name[:200]!a} was refused: {error}",
                severity=Severity.WARNING,
                data={"peer": str(protocol.peer), "reason": str(error), "name": request.name[:200]},
            )
            await stream.send_message(wire.refusal(str(error)))
            return
        await stream.send_message(wire.admission(admission))

    async def heartbeat(self, stream: Stream[Any, Any]) -> None:
        """A sign of life; from the first on, further ones are owed."""
        request = await _request(stream)
        transport = self._sessions.of(request.session_token or _token(stream), _connection(stream))
        transport.beat()
        await stream.send_message(wire.heartbeat(transport.longest_silence))

    async def submit_tx(self, stream: Stream[Any, Any]) -> None:
        """There is no way for transactions yet, which every peer is told."""
        request = await _request(stream)
        protocol = _connection(stream)
        token = _token(stream)
        if token or self._sessions.speaks(protocol):
            transport = self._sessions.of(token, protocol)
            if not transport.may(Capability.SUBMIT_TX):
                raise GRPCError(Status.PERMISSION_DENIED, f"{transport.plugin} was not granted {Capability.SUBMIT_TX}")
            transport.beat(owes=False)
        await stream.send_message(wire.not_routed(request.id, _NO_ROUTE))

    async def health(self, stream: Stream[Any, Any]) -> None:
        """Whether the node serves."""
        await _request(stream)
        ok, text = self._host.health()
        await stream.send_message(wire.HealthResponse(ok=ok, status=text))

    # ---- the feed ------------------------------------------------------------------------------------------------------------

    async def stream_blocks(self, stream: Stream[Any, Any]) -> None:
        """What happens on the chains, from a cursor, a time or a height on."""
        request = await _request(stream)
        wanted = wire.stream_request(request)
        try:
            chains = wanted.chains or await self._all_chains(wanted.cursor)
            subscription = self._host.subscribe(
                chains,
                cursor=wanted.cursor,
                start=wanted.start,
                steps=wanted.steps,
                raw=wanted.raw,
                ir=wanted.ir is not wire.IrForm.NONE,
                follow=wanted.follow,
            )
            await stream.send_initial_metadata()
            await on_trio(self._feed, subscription, chains, wanted, cast("BoundedStream", stream._stream))
        except CursorError as error:
            raise GRPCError(Status.OUT_OF_RANGE, str(error)) from None
        except NotInStore as error:
            raise GRPCError(Status.NOT_FOUND, str(error)) from None
        except StoreError as error:
            raise GRPCError(Status.UNAVAILABLE, str(error)) from None
        except OperatorError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None

    async def _all_chains(self, cursor: str | None) -> tuple[str, ...]:
        """Raises GRPCError where there is none, or more than a cursor can be of; SuperVMError."""
        chains = tuple(await on_trio(self._host.chains, cursor))
        if not chains:
            raise GRPCError(Status.NOT_FOUND, "no chain is mirrored here yet")
        if len(chains) > MAX_CHAINS:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"this node has {len(chains)} chains, and a stream is of {MAX_CHAINS} at most: name those that are wanted",
            )
        return chains

    async def _feed(self, subscription: Subscription, chains: Sequence[str], wanted: wire.Wanted, out: BoundedStream) -> None:
        """Tells events as they come. In Trio, where they come from: what crosses from loop to loop for each would be late."""
        networks: dict[str, str] = {}
        if wanted.ir is wire.IrForm.MESSAGE:
            networks = {chain: await self._host.network(chain) for chain in chains}
        while events := await subscription.batch():
            if wanted.ir is not wire.IrForm.NONE:
                await self._with_ir(events, wanted, networks, out)
                continue
            place = 0
            while place < len(events):
                parts, size, place = tell(events, place, batch=wanted.batch, most=_SENT_AT_ONCE, since=wanted.since)
                await out.send_parts(parts, size)

    async def _with_ir(
        self, events: Sequence[Event], wanted: wire.Wanted, networks: Mapping[str, str], out: BoundedStream
    ) -> None:
        """``networks``: of each chain, where the IR is wanted as a message."""
        waiting: list[Event] = []
        texts: list[str | None] = []
        encoded: list[bytes | None] = []
        size = 0
        for event in events:
            if event.time >= wanted.since:
                text = self._host.ir_json(event) if wanted.ir is wire.IrForm.JSON else None
                ir = await _ir_message(event, networks) if wanted.ir is wire.IrForm.MESSAGE else None
                waiting.append(event)
                texts.append(text)
                encoded.append(ir)
                size += len(text or "") + len(ir or b"") + len(event.raw or b"")
            if waiting and (size >= _SENT_AT_ONCE or event is events[-1]):
                parts, total, _ = tell(waiting, 0, batch=wanted.batch, most=_UNBOUNDED, json=texts, ir=encoded)
                waiting, texts, encoded, size = [], [], [], 0
                await out.send_parts(parts, total)

    # ---- the exchange --------------------------------------------------------------------------------------------------------

    async def block_exchange(self, stream: Stream[Any, Any]) -> None:
        """A plugin's blocks, logs and all else it says; what is durable, credit and stop the other way."""
        protocol = _connection(stream)
        transport = self._sessions.of(_token(stream), protocol)
        exchange = transport.attach(protocol)
        clean, why, cause = False, "its BlockExchange was broken off", "disconnect"
        reading: asyncio.Task[None] | None = None
        try:
            await stream.send_initial_metadata()
            reading = asyncio.ensure_future(self._read(stream, transport, exchange))
            await self._write(stream, transport, exchange, reading)
            if reading.done():
                reading.result()
                clean = True
        except GRPCError as error:
            why, cause = f"it broke its BlockExchange: {error.message}", "protocol"
            raise
        finally:
            why = protocol.cut_for or why
            if reading is not None and not reading.done():
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reading
            transport.detach(exchange, clean=clean or exchange.finish, why=why, cause=cause)

    async def _read(self, stream: Stream[Any, Any], transport: RemoteTransport, exchange: Exchange) -> None:
        """Takes messages until the plugin ends its side. Raises GRPCError for what is none."""
        messages = cast("BoundedStream", stream._stream).messages()
        chain, generation = transport.chain.encode(), transport.generation
        heard: list[Frame] = []
        size = 0
        try:
            while taken := await messages.take():
                for message in taken:
                    if len(message) < LARGE_MESSAGE:
                        frames, said = hear(message, chain, generation)
                    else:  # which takes long enough for everybody else to notice
                        read = partial(hear, message, chain, generation)
                        frames, said = await on_trio(partial(trio.to_thread.run_sync, read, limiter=self._readers))
                    if frames and not transport.may(Capability.BLOCK_STREAM):
                        raise GRPCError(Status.PERMISSION_DENIED, f"{transport.plugin} was not granted {Capability.BLOCK_STREAM}")
                    # Together what came together, within bounds, and all else in the order in which it came.
                    if heard and (not frames or size >= HEARD_AT_ONCE or len(heard) + len(frames) > MAX_FRAMES):
                        together, heard, size = heard, [], 0
                        await transport.hear(together)
                    if frames:
                        heard += frames
                        size += len(message)
                    else:
                        self._control(said, transport, exchange)
                together, heard, size = heard, [], 0
                await transport.hear(together)
        except GRPCError:
            await transport.hear(heard)
            raise
        finally:
            exchange.poke()

    def _control(self, said: Any, transport: RemoteTransport, exchange: Exchange) -> None:
        match said:
            case proto.Log():
                text = said.text.encode()[:_LONGEST_LINE]
                transport.say(Message(_abi.MESSAGE_LOG, min(max(said.level, 0), 4), _abi.printable(text), 0.0, b""))
            case proto.Metric():
                name = said.name.encode()[:_LONGEST_NAME]
                transport.say(Message(_abi.MESSAGE_METRIC, 0, _abi.printable(name), said.value, b""))
            case proto.SubmitTxRequest():
                if not transport.may(Capability.SUBMIT_TX):
                    raise GRPCError(Status.PERMISSION_DENIED, f"{transport.plugin} was not granted {Capability.SUBMIT_TX}")
                if len(exchange.answers) >= _MOST_ANSWERS:
                    raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{_MOST_ANSWERS} answers to transactions wait to be taken")
                exchange.answers.append(wire.submitted(wire.not_routed(said.id, _NO_ROUTE)))
                exchange.poke()
                transport.beat(owes=False)
            case proto.Shutdown():
                transport.ask_shutdown(said.reason)
            case proto.Beat():
                transport.beat()
            case _:
                transport.beat(owes=False)

    async def _write(
        self, stream: Stream[Any, Any], transport: RemoteTransport, exchange: Exchange, reading: asyncio.Task[None]
    ) -> None:
        """Tells what there is to tell, until the plugin has ended its side or the host ends the call."""
        out = cast("BoundedStream", stream._stream)
        stopped = False
        while True:
            exchange.wanted.clear()
            told: list[bytes] = []
            if exchange.revision == 0:
                # A client of the v0 draft would take all of this for a block: it is stopped by the end of the call.
                exchange.answers.clear()
                exchange.finish = exchange.finish or exchange.stop
            else:
                told += self._told(exchange)
                if exchange.stop and not stopped:
                    stopped = True
                    told.append(wire.stop("its host stops it"))
            if told:
                await out.send_messages(told)
                continue
            if exchange.finish or reading.done():
                return
            await exchange.wanted.wait()

    @staticmethod
    def _told(exchange: Exchange) -> list[bytes]:
        """What is durable, what may be sent besides, and answers."""
        told = []
        if exchange.position is not None:
            told.append(wire.acknowledge(exchange.position))
            exchange.position = None
        if exchange.credit:
            told.append(wire.credit(exchange.credit))
            exchange.credit = 0
        told += exchange.answers
        exchange.answers.clear()
        return told


async def _ir_message(event: Event, networks: Mapping[str, str]) -> bytes | None:
    if event.ir is None:
        return None
    encode = partial(block_message, event.ir, chain=event.chain, height=event.block.height, network=networks[event.chain])
    return await trio.to_thread.run_sync(encode)


async def _request(stream: Stream[Any, Any]) -> Any:
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "the call ended without a request")
    return request


class _Health(HealthBase):
    """The standard health service: what it answers is what Health of PluginHost does."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _status(self, request: HealthCheckRequest | None) -> Any:
        if request is None or request.service not in {"", SERVICE}:
            return None
        return HealthCheckResponse.SERVING if self._host.health()[0] else HealthCheckResponse.NOT_SERVING

    async def Check(self, stream: Stream[HealthCheckRequest, HealthCheckResponse]) -> None:  # noqa: N802
        """Once."""
        status = self._status(await stream.recv_message())
        if status is None:
            raise GRPCError(Status.NOT_FOUND, f"there is no such service; {SERVICE} is one")
        await stream.send_message(HealthCheckResponse(status=status))

    async def Watch(self, stream: Stream[HealthCheckRequest, HealthCheckResponse]) -> None:  # noqa: N802
        """Whenever it changes."""
        request = await stream.recv_message()
        told = None
        while True:
            status = self._status(request)
            status = HealthCheckResponse.SERVICE_UNKNOWN if status is None else status
            if status != told:
                told = status
                await stream.send_message(HealthCheckResponse(status=status))
            await asyncio.sleep(_WATCH_SECONDS)


def standard_services(host: Host) -> list[Any]:
    """Health and reflection, so that tools need no proto file."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(wire.descriptors()).file:
        pool.Add(file)
    health = FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(health)
    pool.Add(health)
    names = (SERVICE, _HEALTH)
    # Its constructor is private, and its public maker wants services of its own kind.
    first, second = ServerReflection.extend([_Named(name) for name in names], pool=pool)[-2:]
    return [_Health(host), first, second]


class _Named:
    """A service for reflection: its name only."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __mapping__(self) -> dict[str, Any]:
        return {f"/{self._name}/": None}
