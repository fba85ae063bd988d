"""Fields as protobuf writes them."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A number of at least 0."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """Bytes, a text or a submessage."""
    return varint(number << 3 | 2) + varint(len(content)) + content
