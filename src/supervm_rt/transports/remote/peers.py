"""Who is at the other end of a connection."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

_CREDENTIALS = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """What a connection says of who made it, by means that the peer cannot choose."""

    identity: str
    """``uid 1000``, ``certificate 1f..``: connections of one identity come from one user, or show one certificate."""
    address: str
    """For people."""
    names: frozenset[str] = frozenset()
    """Of its certificate."""
    plugin: str | None = None
    """It came over the socket of a plugin that the host started, and so is this plugin."""

    def __str__(self) -> str:
        return f"{self.address} ({self.identity})"


def user_of(connection: socket.socket) -> tuple[int, int]:
    """(user, process) that made a connection over a Unix socket, as the kernel says."""
    process, user, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return user, process


def names_of(certificate: dict[str, Any]) -> frozenset[str]:
    """The names in a verified certificate: its DNS and URI names, or its common name where it has none of them."""
    names = frozenset(value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "URI", "IP Address"})
    if names:
        return names
    return frozenset(value for relative in certificate.get("subject", ()) for name, value in relative if name == "commonName")
