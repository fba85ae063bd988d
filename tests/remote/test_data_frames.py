"""What a peer sends in frames of data becomes messages, however it is divided, with one copy and within bounds."""

from __future__ import annotations

import asyncio
import random

import pytest
from grpclib.exceptions import GRPCError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived

from supervm_rt.transports.remote._frames import LARGE_MESSAGE, Body, hear, split
from supervm_rt.transports.remote.http2 import CONNECTION_WINDOW, BoundedH2
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.transports.remote.messages import MessageBuffer
from tests.remote.messages import field
from tests.remote.support import framed

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a"), ("content-type", "application/grpc")]
LIMIT = 1 << 20


def connected() -> tuple[H2Connection, BoundedH2]:
    """A client and the server's side of its connection, on which stream 1 is open."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    server = BoundedH2(H2Configuration(client_side=False, header_encoding="ascii"), RemoteLimits())
    server.initiate_connection()
    server.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
    client.initiate_connection()
    client.send_headers(1, HEADERS)
    client.receive_data(server.data_to_send())
    events = server.receive_data(client.data_to_send())
    assert any(isinstance(event, RequestReceived) for event in events)
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    return client, server


def test_a_frame_need_not_be_whole() -> None:
    """Nothing of a frame of data is kept until the rest of it is there."""
    client, server = connected()
    client.send_data(1, b"ab" * 5_000)
    data = client.data_to_send()
    first, second = server.receive_data(data[:4_009]), server.receive_data(data[4_009:])
    assert [bytes(event.data) for event in first + second if isinstance(event, DataReceived)] == [b"ab" * 2_000, b"ab" * 3_000]
    assert not server.incoming_buffer._data


@pytest.mark.parametrize("seed", range(20))
def test_divided_anyhow_it_is_the_same(seed: int) -> None:
    chance = random.Random(seed)
    client, server = connected()
    sizes = [chance.choice([0, 1, 5, 300, 20_000, 200_000]) for _ in range(20)]
    sent = [chance.randbytes(size) for size in sizes]
    stream = b"".join(map(framed, sent))
    wire, place = b"", 0
    while place < len(stream):
        length = min(chance.choice([1, 9, 100, 16_384]), len(stream) - place, client.local_flow_control_window(1))
        if chance.random() < 0.05:
            client.ping(b"12345678")
        client.send_data(1, stream[place : place + length], pad_length=chance.choice([None, None, 3]))
        place += length
    wire = client.data_to_send()
    given: list[int] = []
    accounted = [0]

    def account(size: int) -> None:
        accounted[0] += size

    buffer = MessageBuffer(given.append, LIMIT, account)
    received: list[bytes] = []
    size = 0
    place = 0
    while place < len(wire):
        piece = wire[place : place + chance.choice([1, 10, 1_000, 60_000])]
        place += len(piece)
        for event in server.receive_data(memoryview(piece)):
            if isinstance(event, DataReceived):
                buffer.add(event.data, event.flow_controlled_length)
                size += event.flow_controlled_length
    if any(True for _ in buffer._messages):
        received = asyncio.run(buffer.take())
    buffer.settle()
    assert received == sent
    assert sum(given) == size
    assert accounted == [0]
    assert not buffer.begun


def test_what_is_held_of_a_message_is_what_came_of_it() -> None:
    """A peer that announces much and sends little costs little."""
    accounted: list[int] = []
    buffer = MessageBuffer(lambda size: None, 64 << 20, accounted.append)
    buffer.add(b"\0\x04\0\0\0" + bytes(100), 105)
    assert sum(accounted) == 105
    assert buffer.begun
    buffer.eof()
    with pytest.raises(GRPCError, match="inside a message"):
        asyncio.run(buffer.take())
    assert sum(accounted) == 0


@pytest.mark.parametrize(("head", "why"), [(b"\1\0\0\0\0", "compressed"), (b"\0\0\x10\0\x01", "above the limit")])
def test_what_came_before_a_refused_message_is_still_read(head: bytes, why: str) -> None:
    accounted: list[int] = []
    buffer = MessageBuffer(lambda size: None, LIMIT, accounted.append)
    data = framed(b"one") + head + b"more"
    buffer.add(data[:10], 10)
    buffer.add(data[10:], len(data) - 10)
    assert asyncio.run(buffer.take()) == [b"one"]
    assert sum(accounted) == 0
    with pytest.raises(GRPCError, match=why):
        asyncio.run(buffer.take())


def test_a_body_is_made_of_pieces_of_any_size() -> None:
    content = random.Random(1).randbytes(3_000_000)
    body, place = Body(len(content)), 0
    with pytest.raises(ValueError, match="not whole"):
        body.message()
    for size in (0, 1, 65_535, 1, 200_000, 5_000_000):
        place += body.take(memoryview(content)[place : place + size])
        assert len(body) == place
    assert body.whole
    assert body.message() == content
    with pytest.raises(ValueError, match="not whole"):
        body.message()
    with pytest.raises(ValueError, match="taken already"):
        body.take(b"x")
    for length in (0, 1 << 32):
        with pytest.raises(ValueError, match="cannot be begun"):
            Body(length)


def test_split_says_where_it_stopped() -> None:
    into: list[bytes] = []
    assert split(framed(b"") + framed(b"ab") + b"\0\0\0\0", 10, into) == (12, 0)
    assert into == [b"", b"ab"]
    assert split(framed(b"ab")[:-1], 10, into) == (0, 0)
    assert split(b"\1\0\0\0\0", 10, into) == (0, -1)
    assert split(b"\0\0\0\0\x0b", 10, into) == (0, 11)


def test_a_large_message_is_read_as_a_small_one_is() -> None:
    """It is read elsewhere, and to the same frames and refusals."""

    def block(number: int, hash_: bytes = b"h" * 32) -> bytes:
        return field(1, field(2, number) + field(3, bytes([number]) * 700_000) + field(6, hash_))

    blocks = [block(number) for number in range(1, 8)]
    small = [hear(field(23, one), generation=3)[0][0] for one in blocks]
    large = field(23, b"".join(blocks))
    assert len(large) > LARGE_MESSAGE
    frames, _ = hear(large, generation=3)
    assert [(frame.height, bytes(frame), frame.hash, frame.generation) for frame in frames] == [
        (frame.height, bytes(frame), frame.hash, frame.generation) for frame in small
    ]
    one, _ = hear(field(2, 9) + field(3, bytes(LARGE_MESSAGE)), generation=3)
    assert (one[0].height, len(one[0])) == (9, LARGE_MESSAGE)
    with pytest.raises(Exception, match=r"batch\.blocks\[7\] is not allowed: hash has 65 bytes"):
        hear(field(23, b"".join([*blocks, block(9, bytes(65))])), generation=3)
    with pytest.raises(Exception, match="it ends inside a field"):
        hear(large[:-1], generation=3)
