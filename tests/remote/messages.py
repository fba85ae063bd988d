"""Messages written byte by byte from the published facts, so that no generated code vouches for itself."""

from __future__ import annotations

import struct

HASH, PARENT = 6, 7
"""Numbers of fields of BlockMessage that v0 does not have."""


def varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a message, by number."""
    found: dict[int, list[int | bytes]] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        key = number()
        kind = key & 7
        if kind == 0:
            found.setdefault(key >> 3, []).append(number())
        else:
            length = {1: 8, 5: 4}.get(kind) or number()
            found.setdefault(key >> 3, []).append(message[place : place + length])
            place += length
    return found


def register(
    name: str, *, chain: str = "dev", version: str = "1.0.0", capabilities: tuple[str, ...] = ("block_stream",)
) -> bytes:
    """RegisterRequest of v0."""
    return field(1, name) + field(2, version) + field(3, chain) + b"".join(field(4, each) for each in capabilities)


def registered(response: bytes) -> bool:
    """Whether a RegisterResponse says that it was accepted."""
    return fields(response).get(2) == [1]


def block(height: int) -> bytes:
    """A block of the chain dev, behind the one of the height below."""
    ids = field(HASH, bytes([height] * 32)) + field(PARENT, bytes([height - 1] * 32))
    return field(1, "dev") + field(2, height) + field(3, b"block %d" % height) + ids
