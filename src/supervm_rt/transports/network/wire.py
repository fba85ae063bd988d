"""Packets between host and plugin (_native/network.h). What the plugin's end says may come from the plugin itself."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

GREETING = struct.Struct("<QII")
REQUEST = struct.Struct("<QQIIIiHHI256s")
ANSWER = struct.Struct("<QIiII")
NONBLOCKING = 1


class Kind(enum.IntEnum):
    """What a request asks for."""

    CONNECT = 1
    LISTEN = 2
    ACCEPT = 3
    CLOSE_LISTENER = 4


class Status(enum.IntEnum):
    """The answers, as in supervm/status.h."""

    OK = 0
    INVALID_ARGUMENT = -1
    NOT_GRANTED = -2
    QUEUE_FULL = -4
    STOPPING = -6
    WOULD_BLOCK = -7
    NOT_FOUND = -9
    NO_MEMORY = -11
    TIMED_OUT = -12
    UNREACHABLE = -13


class WireBroken(Exception):
    """A packet that no plugin sends through the functions of supervm.net/1."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a plugin."""

    generation: int
    id: int
    kind: Kind
    name: str
    port: int
    nonblocking: bool
    timeout: float | None
    """Seconds; None: without end."""
    listener: int


def greeting(generation: int, max_sockets: int) -> bytes:
    """What the plugin's side reads first."""
    return GREETING.pack(generation, max_sockets, 0)


def answer(request: int, status: Status, *, listener: int = 0, port: int = 0) -> bytes:
    """The answer to a request, by its id."""
    return ANSWER.pack(listener, request, status, port, 0)


def parse_request(data: bytes, longest: float) -> Request:
    """``longest``: seconds that a connect may ask for. Raises WireBroken."""
    if len(data) != REQUEST.size:
        raise WireBroken(f"a packet of {len(data)} bytes")
    generation, listener, number, kind, flags, milliseconds, port, length, reserved, name = REQUEST.unpack(data)
    if kind not in Kind.__members__.values() or number == 0 or flags & ~NONBLOCKING or reserved or length > 253:
        raise WireBroken("a request that has no meaning")
    endless = milliseconds < 0 and kind == Kind.ACCEPT
    timeout = None if endless else max(milliseconds, 0) / 1000
    return Request(
        generation=generation,
        id=number,
        kind=Kind(kind),
        # What is not ASCII is no name, which the check of names says.
        name=name[:length].decode("latin-1"),
        port=port,
        nonblocking=bool(flags & NONBLOCKING),
        timeout=min(timeout, longest) if timeout is not None and kind == Kind.CONNECT else timeout,
        listener=listener,
    )
