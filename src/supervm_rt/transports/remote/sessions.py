"""Which connection speaks for which plugin: registrations, their tokens, and the transports that wait for them (clause R1)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from typing import TYPE_CHECKING

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt.errors import ConfigurationError
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.remote.crossing import on_trio
from supervm_rt.transports.remote.introduction import Host, Introduction, Said
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.transports.remote.transport import Admission, RemoteTransport

if TYPE_CHECKING:
    from supervm_rt.transports.remote.http2 import BoundedProtocol


class Sessions:
    """All registrations of a server. Used from the loop's thread."""

    def __init__(self, host: Host, limits: RemoteLimits) -> None:
        self._host = host
        self.limits = limits
        self._transports: dict[str, RemoteTransport] = {}
        """By plugin: the present life of each."""
        self._tokens: dict[str, RemoteTransport] = {}
        self._of_connection: dict[BoundedProtocol, list[RemoteTransport]] = {}
        self._registered: Counter[str] = Counter()
        """By identity of the peer."""
        self._changed = asyncio.Event()

    # ---- for transports ------------------------------------------------------------------------------------------------------

    def expect(self, transport: RemoteTransport) -> None:
        """This life of its plugin waits for a registration."""
        self._transports[transport.plugin] = transport
        self.poke()

    def leave(self, transport: RemoteTransport) -> None:
        """This life is over: its token is worth nothing any more."""
        if self._transports.get(transport.plugin) is transport:
            del self._transports[transport.plugin]
        if self._tokens.pop(transport.token, None) is not None and transport.introduction is not None:
            identity = transport.introduction.peer.identity
            self._registered[identity] -= 1
            if not self._registered[identity]:
                del self._registered[identity]
        if transport.protocol is not None:
            mine = self._of_connection.get(transport.protocol, [])
            if transport in mine:
                mine.remove(transport)
            if not mine:
                self._of_connection.pop(transport.protocol, None)
        self.poke()

    def poke(self) -> None:
        """Something has changed of what a registration may wait for: a life has begun or is over, a plugin has ended for good."""
        self._changed.set()
        self._changed = asyncio.Event()

    @staticmethod
    def said(manifest: Manifest, introduction: Introduction) -> bytes:
        """What a plugin said of itself, as JSON; the host compared it when it let it in."""
        if introduction.manifest:
            return introduction.manifest.encode("utf-8", "replace")
        said = {
            "id": manifest.id,
            "name": manifest.name,
            "version": introduction.version,
            "chain": introduction.chain,
            "capabilities": list(introduction.capabilities),
        }
        return json.dumps(said).encode()

    # ---- for calls -----------------------------------------------------------------------------------------------------------

    async def register(self, introduction: Introduction, protocol: BoundedProtocol) -> Admission:
        """Lets a plugin in. Raises SuperVMError with why it is not, and GRPCError where it cannot be answered now."""
        identity = introduction.peer.identity
        if self._registered[identity] >= self.limits.registrations_per_peer:
            raise ConfigurationError(
                f"{introduction.peer} has {self._registered[identity]} plugins registered already",
                remedy="raise registrations_per_peer, or stop some",
            )
        if not await on_trio(self._host.opened, self.limits.register):
            raise GRPCError(Status.UNAVAILABLE, "the node is still being opened; try again in a moment")
        said = self._host.read(introduction)
        try:
            transport = await self._admitted(said)
        except BaseException:
            # Also where the peer has gone: a plugin that was added for it alone would be waited for in vain.
            self._host.withdraw(said, self._taken)
            raise
        token = secrets.token_urlsafe(24)
        answer = transport.introduce(introduction, protocol, token)
        self._tokens[token] = transport
        self._of_connection.setdefault(protocol, []).append(transport)
        self._registered[identity] += 1
        protocol.connection.register()
        try:
            return await answer
        except BaseException:
            transport.lost("its registration was not waited for")
            raise

    async def _admitted(self, said: Said) -> RemoteTransport:
        """The life that this registration is for, once it waits for one."""
        deadline = asyncio.get_running_loop().time() + self.limits.register
        plugin = ""
        while True:
            changed = self._changed
            plugin = await on_trio(self._host.admit, said)
            transport = self._transports.get(plugin)
            if transport is not None and transport.awaited:
                return transport
            if transport is not None and transport.introduction is not None:
                self._supersede(transport, said.introduction)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise GRPCError(Status.UNAVAILABLE, f"{plugin}: its last life is still being ended; try again in a moment")
            refusal = self._host.refusal(plugin)
            if refusal and (transport is None or transport.introduction is None):
                raise ConfigurationError(f"{plugin}: {refusal}", remedy="ask the operator of this node")
            # Not wait_for: in Python 3.11 it may lose a cancellation, and the call of a peer that has gone would go on.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()

    def _taken(self, plugin: str) -> bool:
        """Whether the present life of a plugin has been registered."""
        transport = self._transports.get(plugin)
        return transport is not None and not transport.awaited

    def _supersede(self, transport: RemoteTransport, introduction: Introduction) -> None:
        """A plugin that comes again, while its last life is not known to be over, takes its place: its connection may be dead."""
        assert transport.introduction is not None
        if transport.introduction.peer.identity != introduction.peer.identity:
            raise ConfigurationError(
                f"{transport.plugin} is registered by another peer ({transport.introduction.peer})",
                remedy="register under a name of its own, or stop the other one",
            )
        transport.lost("it registered again while it was running", "superseded")

    def of(self, token: str | None, protocol: BoundedProtocol) -> RemoteTransport:
        """The registration that a call speaks for: by its token, or where it sends none, by its connection. Raises GRPCError."""
        if token:
            transport = self._tokens.get(token)
            if transport is None:
                raise GRPCError(Status.UNAUTHENTICATED, "the session token is of no plugin that is registered: register again")
            assert transport.introduction is not None
            if transport.introduction.peer.identity != protocol.peer.identity:
                raise GRPCError(Status.PERMISSION_DENIED, "the session token belongs to another peer")
            return transport
        mine = self._of_connection.get(protocol, [])
        if not mine:
            raise GRPCError(Status.UNAUTHENTICATED, "no plugin is registered over this connection: call Register first")
        if len(mine) > 1:
            raise GRPCError(
                Status.FAILED_PRECONDITION, "several plugins are registered over this connection: send the session token"
            )
        return mine[0]

    def lost(self, protocol: BoundedProtocol) -> None:
        """A connection ended. Who registered over it and has no exchange elsewhere is gone."""
        for transport in self._of_connection.pop(protocol, []):
            if transport.exchange is None or transport.exchange.protocol is protocol:
                transport.lost(protocol.cut_for or "its connection was lost")

    def speaks(self, protocol: BoundedProtocol) -> bool:
        """Whether a plugin is registered over this connection."""
        return bool(self._of_connection.get(protocol))
