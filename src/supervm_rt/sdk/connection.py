"""A plugin's connection to its host, on asyncio; ``sdk.flavours`` wraps it for Trio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import ssl as tls
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h2.exceptions
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol

from supervm_rt.errors import ConfigurationError, OperatorError, SuperVMError
from supervm_rt.sdk import messages
from supervm_rt.sdk.messages import Submitted
from supervm_rt.transports.remote.service import TOKEN, Codec

SERVICE = "/supervm.plugin.PluginHost/"
ADDRESS_VARIABLE = "SUPERVM_SOCKET"
"""The environment variable in which a host that starts a plugin names its socket."""
MOST_UNSENT = 4 << 20
"""Bytes that wait to be sent before publish waits."""
BATCH_BYTES = 256 << 10
"""About so many bytes go into one message."""
SMALL = 64 << 10
"""A block below this size goes along with others."""
END_SECONDS = 10.0


class Refused(OperatorError):
    """The host did not let the plugin in; the text says why."""


class Disconnected(SuperVMError):
    """The host cannot be reached, or the connection was lost. What was not acknowledged has to be sent again, from the position
    that the next registration gives."""

    blame = "peer"


class Stopped(SuperVMError):
    """The host told the plugin to stop: nothing more is taken."""

    blame = "host"


@dataclass(frozen=True, slots=True)
class Description:
    """What a plugin registers with, as in its plugin.yaml."""

    name: str
    """The id in its manifest, or the name that the node's configuration gives it."""
    version: str
    chain: str
    capabilities: Sequence[str] = ("block_stream",)
    manifest: str = ""
    """The whole plugin.yaml as JSON; empty: the host knows it, or takes what the other fields say."""


class Connection:
    """One registration. Made by ``open_connection``; used from one event loop."""

    def __init__(self, channel: Channel, description: Description, response: Any) -> None:
        self.plugin: str = response.plugin_id
        """The plugin's id at this host."""
        self.generation: int = response.generation
        """Which life of the plugin this is."""
        self.capabilities = frozenset(response.capabilities)
        """What the host granted."""
        self.configuration: dict[str, Any] = json.loads(response.configuration_json or "{}")
        """The operator's settings for the plugin."""
        self.position: bytes = response.position
        """Where to resume: behind what carried this position. Empty: at the beginning."""
        self.durable: bytes = response.position
        """The last position that the host has committed."""
        self.stopping = asyncio.Event()
        """The host told the plugin to stop."""
        self._heartbeat = response.heartbeat_ms / 1000
        self._token = response.session_token
        self._chain = description.chain
        self._channel = channel
        self._credit: int = response.credit_bytes
        self._unsent: deque[tuple[bytes, bool]] = deque()
        """Encoded messages, and whether each can go into a batch."""
        self._unsent_bytes = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._asked: dict[int, asyncio.Future[Submitted]] = {}
        """By number: transactions that were not answered yet."""
        self._numbers = itertools.count(1)
        self._finished = False
        self._told_to_stop = False
        self._failure: SuperVMError | None = None

    # ---- what a plugin says --------------------------------------------------------------------------------------------------

    def offer(
        self,
        raw: bytes | memoryview,
        *,
        height: int | None = None,
        hash: bytes = b"",  # noqa: A002 - the field's name
        parent: bytes = b"",
        position: bytes = b"",
        final_height: int | None = None,
        weight: int | None = None,
        time: int | None = None,
    ) -> bool:
        """As ``publish``, without waiting. False: there is no room now, and nothing was done."""
        self._check()
        if self._unsent_bytes >= MOST_UNSENT or self._credit <= 0:
            return False
        encoded = messages.block(
            self._chain,
            raw,
            height=height,
            hash=hash,
            parent=parent,
            position=position,
            final_height=final_height,
            weight=weight,
            time=time,
        )
        self._credit -= len(raw)
        self._put(encoded, small=len(encoded) < SMALL)
        return True

    @property
    def crowded(self) -> bool:
        """Whether enough waits to be sent that its sender should have a turn."""
        return self._unsent_bytes >= BATCH_BYTES

    def _put(self, encoded: bytes, *, small: bool = False) -> None:
        self._unsent.append((encoded, small))
        self._unsent_bytes += len(encoded)
        self._something.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.stopping.is_set():
            raise Stopped(f"{self.plugin}: the host told it to stop")

    async def publish(
        self,
        raw: bytes | memoryview,
        *,
        height: int | None = None,
        hash: bytes = b"",  # noqa: A002 - the field's name
        parent: bytes = b"",
        position: bytes = b"",
        final_height: int | None = None,
        weight: int | None = None,
        time: int | None = None,
    ) -> None:
        """Sends one block, as the chain's own bytes. Waits while the host has no room for more.

        ``height``, ``hash``, ``parent``, ``weight``, ``time``: for chains whose bytes do not say them; the time in nanoseconds
        since 1970-01-01 UTC, of the years 1678 to 2261. ``position``: any bytes, with which the plugin can go on behind this
        block. ``final_height``: blocks up to this height are final once this one is canonical. Raises Stopped, Disconnected;
        ValueError for a time that cannot be said.
        """
        while not self.offer(
            raw,
            height=height,
            hash=hash,
            parent=parent,
            position=position,
            final_height=final_height,
            weight=weight,
            time=time,
        ):
            await self.wait_room()
        if self.crowded:
            await asyncio.sleep(0)

    async def wait_room(self) -> None:
        """Waits until ``offer`` may take something. Raises Stopped, Disconnected."""
        self._check()
        self._room.clear()
        await self._room.wait()
        self._check()

    def reorg(self, from_height: int, to_height: int, orphans: Sequence[bytes], *, position: bytes = b"") -> None:
        """Says that the blocks above ``to_height`` leave the chain; ``orphans``: their ids, tip first."""
        self._check()
        self._put(messages.reorg(self._chain, from_height, to_height, orphans, position))

    def finalized(self, height: int, hash: bytes, *, position: bytes = b"") -> None:  # noqa: A002 - the field's name
        """Says that a block, and so all below it, is final."""
        self._check()
        self._put(messages.finalized(self._chain, height, hash, position))

    def end_of_input(self, *, position: bytes = b"") -> None:
        """Says that there is nothing more for now; further blocks may follow."""
        self._check()
        self._put(messages.end_of_input(self._chain, position))

    def log(self, level: int, text: str) -> None:
        """A line for the host's log. 0 trace, 1 debug, 2 info, 3 warning, 4 error."""
        self._check()
        self._put(messages.log(level, text))

    def metric(self, name: str, value: float) -> None:
        """A sample of a metric."""
        self._check()
        self._put(messages.metric(name, value))

    def request_shutdown(self, reason: int = 0) -> None:
        """Asks the host to end this plugin; other than 0: as a failure."""
        self._check()
        self._put(messages.shutdown(reason))

    async def submit_tx(self, tx: bytes, *, chain: str = "") -> Submitted:
        """Asks the host to hand a transaction on, and waits for what becomes of it. Needs the capability submit_tx.

        ``chain``: whose network it is for; empty: the plugin's own. Raises Stopped, Disconnected.
        """
        self._check()
        number = next(self._numbers)
        answer: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._put(messages.submit(chain or self._chain, tx, number))
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    async def wait_durable(self, position: bytes) -> None:
        """Waits until the host has committed what carried this position. Raises Disconnected."""
        while self.durable != position:
            if self._failure is not None:
                raise self._failure
            self._acknowledged.clear()
            await self._acknowledged.wait()

    async def wait_stopped(self) -> None:
        """Waits until the host tells the plugin to stop. Raises Disconnected."""
        await self.stopping.wait()
        if self._failure is not None and not self._told_to_stop:
            raise self._failure

    # ---- its tasks -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carries messages both ways until the plugin has finished or the connection is lost. For ``open_connection``."""
        route = SERVICE + "BlockExchange"
        try:
            async with self._channel.request(
                route, Cardinality.STREAM_STREAM, bytes, bytes, metadata={TOKEN: self._token}
            ) as stream:
                await stream.send_request()
                tasks = [asyncio.ensure_future(each) for each in (self._send(stream), self._hear(stream), self._beat())]
                try:
                    sending, hearing, _ = tasks
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if sending.done() and sending.exception() is None:
                        await asyncio.wait({hearing}, timeout=END_SECONDS)
                    for task in (hearing, sending):
                        if task.done():
                            task.result()
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            if not self._finished:
                self._fail("the host ended the exchange")
        except GRPCError as error:
            self._fail(f"the host ended the exchange: {error.message or error.status.name}")
        except (OSError, StreamTerminatedError, h2.exceptions.H2Error) as error:
            self._fail(f"the connection was lost ({error})")
        finally:
            self._fail("the connection has ended")

    def _fail(self, why: str) -> None:
        if self._failure is None and self._told_to_stop:
            self._failure = Stopped(f"{self.plugin}: the host told it to stop")
        elif self._failure is None:
            self._failure = Disconnected(f"{self.plugin}: {why}", remedy="register again, and go on from the position it gives")
        self.stopping.set()
        for event in (self._room, self._acknowledged, self._something):
            event.set()
        for answer in self._asked.values():
            if not answer.done():
                assert self._failure is not None
                answer.set_exception(self._failure)

    async def _send(self, stream: Stream[Any, Any]) -> None:
        while True:
            while self._unsent:
                await stream.send_message(self._next())
                if self._unsent_bytes < MOST_UNSENT // 2:
                    self._room.set()
            if self._finished or self.stopping.is_set():
                await stream.end()
                return
            self._something.clear()
            await self._something.wait()

    def _next(self) -> bytes:
        encoded, small = self._unsent.popleft()
        self._unsent_bytes -= len(encoded)
        if not small or not self._unsent or not self._unsent[0][1]:
            return encoded
        together, size = [encoded], len(encoded)
        while self._unsent and self._unsent[0][1] and size < BATCH_BYTES:
            encoded, _ = self._unsent.popleft()
            together.append(encoded)
            size += len(encoded)
            self._unsent_bytes -= len(encoded)
        return messages.batch(together)

    async def _hear(self, stream: Stream[Any, Any]) -> None:
        while (message := await stream.recv_message()) is not None:
            try:
                heard = messages.hear(message)
            except ValueError as error:
                self._fail(str(error))
                return
            if heard.position is not None:
                self.durable = heard.position
                self._acknowledged.set()
            if heard.credit:
                self._credit += heard.credit
                self._room.set()
            if heard.submitted is not None:
                number, result = heard.submitted
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(result)
            if heard.answer is not None and not self.stopping.is_set():
                self._put(heard.answer)
                while self._unsent_bytes >= MOST_UNSENT and self._failure is None:
                    self._room.clear()
                    await self._room.wait()
            if heard.stop:
                self._told_to_stop = True
                self.stopping.set()
                self._room.set()
                self._something.set()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat / 3)
            self._put(messages.beat())

    def finish(self) -> None:
        """Ends the plugin's side once all is sent."""
        self._finished = True
        self._something.set()


@asynccontextmanager
async def open_connection(
    address: str | None, description: Description, *, ssl: tls.SSLContext | None = None
) -> AsyncGenerator[Connection, None]:
    """Registers a plugin, and ends it well with the block: what was published is sent before.

    ``address``: ``unix:PATH`` or ``HOST:PORT``, with ``ssl`` for the latter; None: what the host that started the process says.
    Raises Refused, Disconnected, ConfigurationError.
    """
    channel = _channel(address, ssl)
    try:
        response = await _register(channel, description)
        connection = Connection(channel, description, response)
        running = asyncio.ensure_future(connection.run())
        try:
            yield connection
            connection.finish()
            await running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    finally:
        channel.close()


class _Channel(Channel):
    """grpclib's, which leaves nothing to be done by an event loop that may end at once."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._transports: list[Any] = []

    async def _create_connection(self) -> H2Protocol:
        protocol = await super()._create_connection()
        if self._ssl is not None and (transport := getattr(protocol.connection, "_transport", None)) is not None:
            self._transports.append(transport)
        return protocol

    def close(self) -> None:
        """As grpclib does it. Over TLS the farewell of the other side is not waited for."""
        super().close()
        for transport in self._transports:
            transport.abort()
        self._transports.clear()


def _channel(address: str | None, ssl: tls.SSLContext | None) -> Channel:
    if address is None:
        path = os.environ.get(ADDRESS_VARIABLE)
        if path is None:
            raise ConfigurationError(
                "no address was given, and no host started this process",
                remedy=f"give unix:PATH or HOST:PORT, or set {ADDRESS_VARIABLE}",
            )
        address = f"unix:{path}"
    if address.startswith("unix:"):
        return _Channel(path=address.removeprefix("unix:"), codec=Codec())
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"{address!a} is no address of a host", remedy="give unix:PATH or HOST:PORT")
    if ssl is None:
        raise ConfigurationError(
            f"{address}: over TCP a host wants a certificate", remedy="give ssl=, a context with the plugin's certificate"
        )
    return _Channel(host.removeprefix("[").removesuffix("]"), int(port), codec=Codec(), ssl=ssl)


async def _register(channel: Channel, description: Description) -> Any:
    request = messages.register(description)
    try:
        async with channel.request(
            SERVICE + "Register", Cardinality.UNARY_UNARY, type(request), messages.RegisterResponse
        ) as stream:
            await stream.send_message(request, end=True)
            response: Any = await stream.recv_message()
    except GRPCError as error:
        raise Disconnected(f"{description.name}: the host did not answer: {error.message or error.status.name}") from None
    except (OSError, StreamTerminatedError, h2.exceptions.H2Error) as error:
        raise Disconnected(
            f"{description.name}: the host cannot be reached ({error})", remedy="check its address and that it runs"
        ) from None
    if response is None or not response.accepted:
        raise Refused(f"{description.name}: {response.message if response else 'the host ended the call'}")
    return response
