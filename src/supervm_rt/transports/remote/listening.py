"""Accepts connections: bounds first, then who it is, then gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.remote.addresses import TcpAddress, UnixAddress
from supervm_rt.transports.remote.http2 import BoundedProtocol, BoundedServer
from supervm_rt.transports.remote.peers import Peer, names_of, user_of

_logger = logging.getLogger("supervm_rt")

_BACKLOG = 512
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_WITHOUT_ROOM = 0.1
"""Seconds until the next try, where this process can open no more descriptors."""

Refuse = Callable[[str, str], None]
"""Hears the address of a peer that was refused, and why."""


def listen_unix(path: Path, *, mode: int) -> socket.socket:
    """A listening socket. One that nobody listens on any more is replaced. Raises ConfigurationError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        listener.bind(bytes(path))
        # Nobody can connect before it listens, so nobody sees the mode that it was made with.
        path.chmod(mode)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"unix:{path}: cannot listen there ({error.strerror})", remedy="name a path in a folder that this user may write"
        ) from None
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(f"unix:{path}: there is something there that is no socket", remedy="name another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(bytes(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return  # bind will say what is wrong
        else:
            raise ConfigurationError(f"unix:{path}: another process listens there", remedy="name another path")


def unlink_unix(path: Path, listener: socket.socket) -> None:
    """Removes the socket's name, and closes it."""
    listener.close()
    with contextlib.suppress(OSError):
        path.unlink()


def listen_tcp(address: TcpAddress) -> list[socket.socket]:
    """Listening sockets, one for each address of the host's name. Raises ConfigurationError."""
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        port = address.port
        for family, _, _, _, where in dict.fromkeys(found):
            # By its protocol asyncio knows whether what is written is to be sent at once.
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((where[0], port, *where[2:]))
            port = listener.getsockname()[1]  # the same for all, where any would do
            listener.listen(_BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigurationError(
            f"{address}: cannot listen there ({error.strerror})", remedy="name an address of this machine and a free port"
        ) from None
    return listeners


class Gate:
    """Lets peers in through listening sockets."""

    def __init__(self, server: BoundedServer, loop: Any, refuse: Refuse) -> None:
        """``loop``: trio-asyncio's."""
        self._server = server
        self._loop = loop
        self._refuse = refuse
        self._coming = 0
        """Connections that are between accept and gRPC."""
        self._number = 0

    async def unix(self, listener: socket.socket, address: UnixAddress, plugin: str | None = None) -> None:
        """Accepts over a Unix socket until cancelled.

        ``plugin``: whoever comes is this plugin; the host itself connects it, and nobody else may come.
        """
        allowed = address.users | {0, os.geteuid()}
        async with trio.open_nursery() as nursery:
            while True:
                connection, _ = await self._accept(listener)
                try:
                    user, process = user_of(connection)
                except OSError:  # nobody is there any more
                    self._coming -= 1
                    connection.close()
                    continue
                where = f"{address} from process {process}"
                why = "" if user in allowed else f"user {user} may not connect; name it in users, where it may"
                if plugin is not None and process != os.getpid():
                    why = f"this is the socket of {plugin}, which this node itself connects"
                if why:
                    self._refuse(where, why)
                    self._coming -= 1
                    connection.close()
                    continue
                peer = Peer(f"uid {user}" if plugin is None else f"program {plugin}", where, plugin=plugin)
                nursery.start_soon(self._let_in, connection, where, None, lambda _, peer=peer: peer)

    async def tcp(self, listener: socket.socket, address: TcpAddress, context: ssl.SSLContext) -> None:
        """Accepts over TCP until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                connection, found = await self._accept(listener)
                where = f"{found[0]}:{found[1]}"
                nursery.start_soon(self._let_in, connection, where, context, partial(self._identify, address, where))

    def _identify(self, address: TcpAddress, where: str, transport: asyncio.BaseTransport) -> Peer | None:
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        names = names_of(transport.get_extra_info("peercert") or {})
        shown = tls.getpeercert(binary_form=True) or b""
        if address.names and not names & address.names:
            self._refuse(where, f"its certificate is for {', '.join(sorted(names)) or 'nobody'}, and none of names")
            return None
        if tls.selected_alpn_protocol() not in {"h2", None}:
            self._refuse(where, "it does not speak HTTP/2")
            return None
        return Peer(f"certificate {hashlib.sha256(shown).hexdigest()[:16]}", where, names)

    async def _accept(self, listener: socket.socket) -> tuple[socket.socket, Any]:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                connection, found = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._refuse(str(listener.getsockname()), f"this process cannot open more connections ({error.strerror})")
                    await trio.sleep(_WITHOUT_ROOM)
                continue  # the peer has gone already
            if len(self._server.protocols) + self._coming >= self._server.limits.connections:
                self._refuse(
                    str(found or listener.getsockname()), f"there are {self._server.limits.connections} connections already"
                )
                connection.close()
                continue
            self._coming += 1
            connection.setblocking(False)
            return connection, found

    async def _let_in(
        self,
        connection: socket.socket,
        where: str,
        context: ssl.SSLContext | None,
        identify: Callable[[asyncio.BaseTransport], Peer | None],
    ) -> None:
        taken, coming = False, True

        def came() -> None:
            nonlocal coming
            self._coming -= coming
            coming = False

        def identify_once_made(transport: asyncio.BaseTransport) -> Peer | None:
            came()  # the server counts it from now on
            return identify(transport)

        def protocol() -> BoundedProtocol:
            nonlocal taken
            taken = True
            return BoundedProtocol(self._server, identify_once_made)

        options: dict[str, Any] = {}
        if context is not None:
            options = {"ssl": context, "ssl_handshake_timeout": self._server.limits.register}
        try:
            await self._loop.run_aio_coroutine(self._loop.connect_accepted_socket(protocol, connection, **options))
        except ssl.SSLCertVerificationError as error:
            self._refuse(where, f"its certificate was refused: {error.verify_message}")
        except ssl.SSLError as error:
            self._refuse(where, f"TLS failed: {_reason(error)}")
        except (OSError, TimeoutError) as error:
            self._refuse(where, f"it did not finish its handshake ({error or type(error).__name__})")
        except (Exception, asyncio.CancelledError):
            _logger.exception("gRPC: a connection of %s could not be taken", where)
            connection.close()
        finally:
            if not taken:  # the node ended before asyncio had it
                connection.close()
            came()


def _reason(error: ssl.SSLError) -> str:
    known = {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
        "UNSUPPORTED_PROTOCOL": "it offers only versions of TLS that are too old",
        "HTTP_REQUEST": "it speaks without TLS",
        "WRONG_VERSION_NUMBER": "it speaks without TLS",
    }
    return known.get(error.reason or "", (error.reason or str(error)).replace("_", " ").lower())
