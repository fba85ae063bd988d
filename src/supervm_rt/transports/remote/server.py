"""The gRPC server of a node: its asyncio loop, its sockets, and the transports of its plugins."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio
import trio_asyncio

from supervm_rt._abi import SealedLibrary
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Manifest
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.allowance import Allowance
from supervm_rt.transports.remote.addresses import Address, TcpAddress, UnixAddress
from supervm_rt.transports.remote.http2 import BoundedServer
from supervm_rt.transports.remote.images import Layout
from supervm_rt.transports.remote.introduction import Host
from supervm_rt.transports.remote.launching import Program
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.transports.remote.listening import Gate, listen_tcp, listen_unix, unlink_unix
from supervm_rt.transports.remote.service import LARGE_METHODS, Codec, PluginHostService, standard_services
from supervm_rt.transports.remote.sessions import Sessions
from supervm_rt.transports.remote.transport import RemoteTransport

_logger = logging.getLogger("supervm_rt")

_CHECK_SECONDS = 1.0
_NOTICES_A_SECOND = 2.0
_NOTICES_AT_ONCE = 50
"""Events about refused peers: whoever connects again and again must not fill the log."""


class RemoteServer:
    """Made and run by a runtime. ``run`` is its task; everything else is called from the same Trio loop, while it runs."""

    def __init__(self, addresses: Sequence[Address], limits: RemoteLimits, host: Host) -> None:
        """``addresses``: where it listens; plugins that the host starts have sockets of their own besides."""
        self._addresses = addresses
        self._limits = limits
        self._host = host
        self._notices = Allowance(rate=_NOTICES_A_SECOND, burst=_NOTICES_AT_ONCE)
        self._told_unnoticed = 0
        self._listening: list[str] = []
        self.sessions = Sessions(host, limits)
        self._nursery: trio.Nursery | None = None
        self._gate: Gate | None = None

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it listens, with the ports that were found: ``unix:PATH``, ``HOST:PORT``."""
        return tuple(self._listening)

    async def run(self, *, task_status: trio.TaskStatus[RemoteServer] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves until cancelled. Raises ConfigurationError before it has started."""
        with contextlib.ExitStack() as sockets:
            # Before any nursery, which would wrap what is raised.
            prepared = [(address, *self._bind(address, sockets)) for address in self._addresses]
            async with trio_asyncio.open_loop() as loop:
                loop.set_exception_handler(_note)
                server = BoundedServer(
                    [PluginHostService(self.sessions, self._host), *standard_services(self._host)],
                    codec=Codec(),
                    limits=self._limits,
                    large=LARGE_METHODS,
                    refused=lambda peer, why: self._refused(str(peer), why),
                    lost=self.sessions.lost,
                )
                self._gate = Gate(server, loop, self._refused)
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for address, listeners, context in prepared:
                        for each in listeners:
                            if isinstance(address, UnixAddress):
                                nursery.start_soon(self._gate.unix, each, address)
                            else:
                                assert context is not None
                                nursery.start_soon(self._gate.tcp, each, address, context)
                    nursery.start_soon(self._check, server)
                    task_status.started(self)
                    try:
                        await trio.sleep_forever()
                    finally:
                        server.close()

    def _bind(self, address: Address, sockets: contextlib.ExitStack) -> tuple[list[socket.socket], ssl.SSLContext | None]:
        if isinstance(address, UnixAddress):
            listener = listen_unix(address.path, mode=0o666 if address.users else 0o600)
            sockets.callback(unlink_unix, address.path, listener)
            self._listens(str(address), "users of the operating system")
            return [listener], None
        context = address.context()
        listeners = listen_tcp(address)
        for each in listeners:
            sockets.callback(each.close)
        self._listens(_name(address, listeners[0]), f"mutual TLS {address.minimum_version} or later")
        return listeners, context

    def _listens(self, where: str, how: str) -> None:
        self._listening.append(where)
        self._host.report(EventKind.REMOTE_LISTENING, f"gRPC on {where} ({how})", data={"address": where})

    async def listen_for(self, plugin: str, path: Path, scope: trio.CancelScope) -> None:
        """A socket for one plugin that the host starts, until the scope is cancelled: nobody but the host connects anyone to it.

        Raises ConfigurationError, HostError.
        """
        assert self._gate is not None
        assert self._nursery is not None
        listener = listen_unix(path, mode=0o600)
        address = UnixAddress(path)

        async def serve() -> None:
            with scope:
                try:
                    assert self._gate is not None
                    await self._gate.unix(listener, address, plugin)
                finally:
                    unlink_unix(path, listener)

        self._nursery.start_soon(serve)
        await trio.lowlevel.checkpoint()

    def report(self, kind: EventKind, message: str, *, data: Mapping[str, object] | None = None) -> None:
        """Hands an event to the node's sink."""
        self._host.report(kind, message, data=data)

    @property
    def nursery(self) -> trio.Nursery:
        """Of what ends with the server."""
        assert self._nursery is not None
        return self._nursery

    async def _check(self, server: BoundedServer) -> None:
        while True:
            await trio.sleep(_CHECK_SECONDS)
            server.check()

    def _refused(self, where: str, why: str) -> None:
        if not self._notices.take(1):
            return
        unnoticed = self._notices.refused - self._told_unnoticed
        self._told_unnoticed = self._notices.refused
        more = f"; {unnoticed} more were not told" if unnoticed else ""
        self._host.report(
            EventKind.REMOTE_REFUSED,
            f"{where} was refused: {why}{more}",
            severity=Severity.WARNING,
            data={"peer": where, "reason": why, "unnoticed": unnoticed},
        )

    def transport(
        self,
        plugin: str,
        *,
        manifest: Manifest,
        generation: int,
        window: int,
        deadlines: Deadlines,
        code: SealedLibrary | Layout | None,
        folder: Path,
        read_paths: dict[str, Path],
        storage: Path,
        complete: bool = False,
    ) -> RemoteTransport:
        """One life of a plugin. ``code``: what the host starts, closed at the end; None: the plugin dials in by itself.

        ``folder``: the plugin's. ``read_paths``, ``storage``: what such a program may read, and write where it is granted some.
        ``complete``: it is not started with a quota that this machine cannot enforce.
        """
        program = None
        if code is not None:
            program = Program(
                self,
                code,
                manifest,
                plugin=plugin,
                folder=folder,
                read_paths=read_paths,
                storage=storage,
                complete=complete,
            )
        return RemoteTransport(
            self.sessions,
            plugin,
            manifest=manifest,
            generation=generation,
            window=window,
            deadlines=deadlines,
            program=program,
        )


def _note(_loop: object, context: dict[str, Any]) -> None:
    """What no call has caught ends one connection at most: trio-asyncio's own handler would end the node."""
    error = context.get("exception")
    _logger.error("gRPC: %s", context.get("message"), exc_info=error if isinstance(error, BaseException) else None)


def _name(address: TcpAddress, listener: socket.socket) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{listener.getsockname()[1]}"
