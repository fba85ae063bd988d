"""Messages between the host and the runner (runner/control.h). What the runner's end says may come from the plugin itself."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

HEADER = struct.Struct("<IIiI")
SETUP = struct.Struct("<QQQQQIIIIII")
GRANT = struct.Struct("<IIQQ")
NO_LIMIT = 0xFFFF_FFFF_FFFF_FFFF
MAX_MESSAGE_BYTES = 1 << 20
MAX_GRANT_BYTES = (4 << 20) - GRANT.size


class Kind(enum.IntEnum):
    """What a message says."""

    SETUP = 1
    GRANT = 2
    INIT = 3
    START = 4
    STOP = 5
    UNLOAD = 6
    ENTERED = 64
    LOADED = 65
    FAILED = 66
    INITIALISED = 67
    STARTED = 68
    STOPPED = 69


class Fault(enum.IntEnum):
    """Why loading went no further."""

    CONFINEMENT = 1
    REFUSED = 2
    MISSING_EXPORT = 3
    MANIFEST_NULL = 4
    MANIFEST_LENGTH = 5


class ControlBroken(Exception):
    """The runner's end said what it never says, or not when it said it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of the runner."""

    kind: Kind
    value: int
    text: bytes


def message(kind: Kind, content: bytes = b"") -> bytes:
    """A message of the host."""
    return HEADER.pack(kind, len(content), 0, 0) + content


@dataclass(frozen=True, slots=True)
class Limits:
    """What the runner limits itself to; None: no limit."""

    memory: int | None = None
    """Bytes of private writable memory."""
    tasks: int | None = None
    file_size: int | None = 0
    """Bytes of the largest file that it may write."""


def setup(
    *,
    ring_bytes: int,
    side_ring_bytes: int,
    limits: Limits,
    heartbeat_ms: int,
    plugin_by_descriptor: bool,
    network: bool,
    landlock_required: bool,
    measured: bool,
    loading: bytes,
    running: bytes,
    paths: list[tuple[str, str]],
) -> bytes:
    """The first message. ``paths``: ("r" or "w", path)."""
    named = b"".join(f"{mode}{path}\0".encode("utf-8", "surrogateescape") for mode, path in paths)
    flags = sum(1 << bit for bit, is_so in enumerate((plugin_by_descriptor, landlock_required, network, measured)) if is_so)
    fixed = SETUP.pack(
        ring_bytes,
        side_ring_bytes,
        *(NO_LIMIT if limit is None else limit for limit in (limits.memory, limits.tasks, limits.file_size)),
        heartbeat_ms,
        flags,
        len(loading),
        len(running),
        len(named),
        0,
    )
    return message(Kind.SETUP, fixed + loading + running + named)


def grant(grants: int, configuration: bytes, position: bytes | None) -> bytes:
    """What the plugin may reach."""
    fixed = GRANT.pack(grants, 0 if position is None else 1, len(configuration), len(position or b""))
    return message(Kind.GRANT, fixed + configuration + (position or b""))


class Inbox:
    """Takes bytes of the runner, gives replies. Each kind must be owed, and is owed once."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._owed: set[Kind] = set()

    def owe(self, *kinds: Kind) -> None:
        """From now on each of these may come, once."""
        self._owed.update(kinds)

    @property
    def owed(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._owed)

    def feed(self, data: bytes) -> None:
        """Takes what was received."""
        self._bytes += data

    def take(self) -> Reply | None:
        """The next reply, where it is whole. Raises ControlBroken."""
        if len(self._bytes) < HEADER.size:
            return None
        kind, length, value, reserved = HEADER.unpack_from(self._bytes)
        if kind not in self._owed or reserved != 0:
            raise ControlBroken(f"a message of kind {kind} that nobody asked for")
        if length > MAX_MESSAGE_BYTES or (length and kind not in {Kind.LOADED, Kind.FAILED}):
            raise ControlBroken(f"a message of {length} bytes")
        if len(self._bytes) < HEADER.size + length:
            return None
        text = bytes(self._bytes[HEADER.size : HEADER.size + length])
        del self._bytes[: HEADER.size + length]
        self._owed.remove(Kind(kind))
        if kind == Kind.LOADED:
            self._owed.discard(Kind.FAILED)
        return Reply(Kind(kind), value, text)
