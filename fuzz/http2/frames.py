"""HTTP/2 as a peer may write it, right or wrong: frames, header blocks, and what gRPC puts into them."""

from __future__ import annotations

from random import Random

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK, END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)
LARGEST_WINDOW = (1 << 31) - 1
SERVICE = "/supervm.plugin.PluginHost/"
Headers = list[tuple[str, str]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; ``length``: what its header says, where that is a lie."""
    said = len(payload) if length is None else length
    return (said & 0xFFFFFF).to_bytes(3) + bytes((kind & 0xFF, flags & 0xFF)) + (stream & 0xFFFFFFFF).to_bytes(4) + payload


def settings(*values: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join((key & 0xFFFF).to_bytes(2) + (value & 0xFFFFFFFF).to_bytes(4) for key, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, (increment & 0xFFFFFFFF).to_bytes(4))


def reset(stream: int, code: int = 8) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, (code & 0xFFFFFFFF).to_bytes(4))


def message(content: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message behind its prefix; ``length``: what the prefix says, where that is a lie."""
    said = len(content) if length is None else length
    return bytes((compressed & 0xFF,)) + (said & 0xFFFFFFFF).to_bytes(4) + content


def call_headers(method: str, *more: tuple[str, str]) -> Headers:
    """Those of a call as gRPC has them."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method if method.startswith("/") else SERVICE + method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    ]


def header_block(encoder: Encoder, headers: Headers) -> bytes:
    """Encoded, with the connection's own table."""
    return bytes(encoder.encode([(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]))


def padded(random: Random, payload: bytes) -> tuple[int, bytes]:
    """Flags and payload, with padding now and then."""
    if random.random() < 0.85:
        return 0, payload
    size = random.choice((0, 1, 7, 255))
    return PADDED, bytes((size,)) + payload + bytes(size)


def begun(random: Random, stream: int, block: bytes, *, end: bool) -> list[bytes]:
    """A HEADERS frame, and CONTINUATION frames where the block is cut into pieces."""
    cuts = sorted(random.randrange(len(block) + 1) for _ in range(random.choice((0, 0, 0, 1, 3))))
    pieces = [block[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(block)], strict=True)]
    # hyperframe takes padding for too long where there is nothing else in HEADERS.
    flags, first = padded(random, pieces[0]) if pieces[0] else (0, b"")
    if random.random() < 0.1:
        flags |= WITH_PRIORITY
        weight = (random.choice((0, 0, 1)) << 31 | 0).to_bytes(4) + bytes((random.randrange(256),))
        first = first[:1] + weight + first[1:] if flags & PADDED else weight + first
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    marks = [flags | (END_STREAM if end else 0)] + [0] * (len(pieces) - 1)
    marks[-1] |= END_HEADERS
    return [frame(kind, mark, stream, piece) for kind, mark, piece in zip(kinds, marks, [first, *pieces[1:]], strict=True)]


def data_frames(random: Random, stream: int, content: bytes, *, end: bool) -> list[bytes]:
    """DATA frames that carry this, cut anywhere, also within prefixes."""
    cuts = sorted(random.randrange(len(content) + 1) for _ in range(random.choice((0, 0, 1, 2, 5))))
    pieces = [content[begin:stop] for begin, stop in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    out = []
    for number, piece in enumerate(pieces):
        flags, payload = padded(random, piece)
        last = end and number == len(pieces) - 1
        out.append(frame(DATA, flags | (END_STREAM if last else 0), stream, payload))
    if end and random.random() < 0.2:  # the end in a frame of its own
        out[-1] = out[-1][:4] + bytes((out[-1][4] & ~END_STREAM,)) + out[-1][5:]
        out.append(frame(DATA, END_STREAM, stream))
    return out
