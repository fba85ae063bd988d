"""Whatever a peer does, it gets an error or is cut, the reason is told, and nobody else notices (clauses T3, R1 to R4).

In each test an honest plugin is registered before, and its blocks still arrive afterwards.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import stat
import struct
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from supervm_rt import EventKind, PluginState, sdk
from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.remote import http2, server
from supervm_rt.transports.remote.addresses import UnixAddress
from supervm_rt.transports.remote.http2 import MAX_FRAME_BYTES, BoundedHandler, BoundedProtocol, BoundedStream
from supervm_rt.transports.remote.limits import RemoteLimits
from tests.remote.messages import block, register, registered
from tests.remote.support import Answer, RawPeer, Served, framed, peer, serving, short_folder

HONEST = "org.example.honest"


@asynccontextmanager
async def beside_an_honest_one(folder: Path, **limits: object) -> AsyncGenerator[Served, None]:
    async with serving(folder, limits=RemoteLimits(**limits)) as node, peer(node.path) as honest:  # type: ignore[arg-type]
        answer = await honest.call("Register", register(HONEST))
        assert registered(answer.messages[0])
        exchange = await honest.begin("BlockExchange")
        await honest.send(exchange, framed(block(1)))
        yield node
        await honest.send(exchange, framed(block(2)))
        with trio.fail_after(20):
            while (tip := node.runtime.chains["dev"].tip) is None or tip.height != 2:
                await trio.sleep(0.005)
        assert node.runtime.plugins[HONEST].failure is None


def played(folder: Path, act: Callable[[Served], Awaitable[None]], **limits: object) -> None:
    async def main() -> None:
        async with beside_an_honest_one(folder, **limits) as node:
            await act(node)

    trio.run(main)


async def refused(node: Served, *, text: str) -> None:
    await node.seen.until(EventKind.REMOTE_REFUSED, text)


# ---- what is no HTTP/2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", bytes(10_000), b"\xff" * 100],
    ids=["HTTP/1.1", "TLS", "zeros", "ones"],
)
def test_what_is_no_http2_is_cut(tmp_path: Path, said: bytes) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path, handshake=False) as raw:
            await raw.stream.send_all(said)
            await closed(raw)
        await refused(node, text="it breaks HTTP/2")

    played(tmp_path, act)


async def closed(raw: RawPeer) -> None:
    """Whatever it still says, the connection ends."""
    with trio.fail_after(20):
        try:
            while await raw.stream.receive_some(1 << 16):
                pass
        except trio.BrokenResourceError:
            pass


def test_a_connection_that_says_nothing_is_cut(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await closed(raw)
        await refused(node, text="it made no call within")

    played(tmp_path, act, register=1.0)


def test_headers_that_never_end(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            begin = HeadersFrame(1, data=b"\x00\x01a\x01b")
            await raw.flush()
            with trio.move_on_after(20):
                try:
                    await raw.stream.send_all(begin.serialize())
                    more = ContinuationFrame(1, data=b"\x00\x01a\x01b" * 100).serialize()
                    for _ in range(1_000):
                        await raw.stream.send_all(more)
                except trio.BrokenResourceError:
                    pass
            await closed(raw)
        await refused(node, text="it breaks HTTP/2")

    played(tmp_path, act)


def test_headers_that_never_end_and_come_slowly(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            await raw.stream.send_all(HeadersFrame(1, data=b"\x00\x01a\x01b").serialize())
            await closed(raw)
        await refused(node, text="it made no call within")

    played(tmp_path, act, register=1.0)


def test_headers_that_unpack_to_far_more(tmp_path: Path) -> None:
    """A table entry of 4,000 bytes, named again and again by one byte each."""

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            value = b"x" * 4_000
            entry = b"\x40\x01a\x7f" + bytes([(len(value) - 127) & 0x7F | 0x80, (len(value) - 127) >> 7]) + value
            bomb = entry + b"\xbe" * 12_000
            await raw.flush()
            await raw.stream.send_all(HeadersFrame(1, data=bomb[:16_000], flags=["END_HEADERS"]).serialize())
            await closed(raw)
        await refused(node, text="it breaks HTTP/2")

    played(tmp_path, act)


def test_a_header_block_in_frames_as_large_as_data_may_be(tmp_path: Path) -> None:
    """Of which 64 would be kept before anybody looks into them."""

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            try:
                await raw.stream.send_all(HeadersFrame(1, data=b"\x00\x01a\x01b").serialize())
                for _ in range(2):
                    await raw.stream.send_all(ContinuationFrame(1, data=bytes(20_000)).serialize())
            except trio.BrokenResourceError:
                pass
            await closed(raw)
        await refused(node, text="a header block of 40005 bytes")

    played(tmp_path, act)


@pytest.mark.parametrize("frame", [ContinuationFrame(1), PingFrame(0), SettingsFrame(0), HeadersFrame(1)])
def test_a_long_frame_of_another_kind_is_refused_before_its_body_comes(tmp_path: Path, frame: Frame) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            await raw.stream.send_all((200_000).to_bytes(3, "big") + frame.serialize()[3:9])
            await closed(raw)
        await refused(node, text="of 200000 bytes")

    played(tmp_path, act)


@pytest.mark.parametrize("known", [True, False], ids=["of a plugin", "of nobody"])
def test_a_frame_of_data_that_is_too_long_is_refused_before_its_body_comes(tmp_path: Path, known: bool) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            if known:
                assert registered((await raw.call("Register", register("org.example.long"))).messages[0])
            stream = await raw.begin("BlockExchange")
            await raw.stream.send_all((MAX_FRAME_BYTES + 1).to_bytes(3, "big") + b"\0\0" + stream.to_bytes(4, "big"))
            await closed(raw)
        await refused(node, text=f"a frame of data of {MAX_FRAME_BYTES + 1} bytes")

    played(tmp_path, act)


def test_a_table_of_headers_is_as_large_as_the_host_wants(tmp_path: Path) -> None:
    """The peer may allow more; what was said of errors would be kept for it."""

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            raw.http.update_settings({SettingCodes.HEADER_TABLE_SIZE: (1 << 32) - 1})
            raw.http.decoder.max_allowed_table_size = (1 << 32) - 1
            for _ in range(2):
                assert (await raw.call("Health", b"")).status == 0
            assert raw.http.decoder.header_table_size <= 4096

    played(tmp_path, act)


@pytest.mark.parametrize("kind", ["reset", "ping", "settings", "empty data", "window"])
def test_a_flood_of_what_carries_nothing(tmp_path: Path, kind: str) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            stream = await raw.begin("BlockExchange")
            frames = {
                "reset": b"",
                "ping": PingFrame(0, opaque_data=bytes(8)).serialize(),
                "settings": SettingsFrame(0, settings={}).serialize(),
                "empty data": DataFrame(stream, data=b"").serialize(),
                "window": WindowUpdateFrame(0, window_increment=1).serialize(),
            }
            try:
                for number in range(20_000):
                    if kind == "reset":
                        await raw.stream.send_all(opened(raw, 3 + 2 * number))
                    else:
                        await raw.stream.send_all(frames[kind] * 10)
            except trio.BrokenResourceError:
                pass
            await closed(raw)
        await refused(node, text="too many frames that carry no data" if kind != "empty data" else "")

    played(tmp_path, act, control_rate=50.0)


def opened(raw: RawPeer, stream: int) -> bytes:
    """A call that is begun and reset at once."""
    headers = raw.http.encoder.encode(
        [(":method", "POST"), (":scheme", "http"), (":path", "/supervm.plugin.PluginHost/Health"), ("te", "trailers")]
    )
    reset = RstStreamFrame(stream, error_code=8)
    return HeadersFrame(stream, data=headers, flags=["END_HEADERS"]).serialize() + reset.serialize()


def test_calls_that_are_begun_and_reset_at_once_are_not_begun_without_end(tmp_path: Path) -> None:
    """CVE-2023-44487: a call that was reset is none of those that are allowed at once, but its end is still to be worked on."""
    begun = 0

    class Counted(BoundedStream):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            nonlocal begun
            begun += 1
            super().__init__(*arguments, **more)

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            flood = b"".join(opened(raw, 1 + 2 * number) for number in range(300))
            with mock.patch.object(http2, "BoundedStream", Counted):
                await raw.stream.send_all(flood)
                raw.http.highest_outbound_stream_id = 599
                with trio.fail_after(10):
                    while (await raw.call("Health", b"")).reset == 7:  # refused, to be tried again
                        pass
            assert begun < 50, begun

    played(tmp_path, act, streams=8)


@pytest.mark.parametrize("way", ["the peer's", "the host's"])
def test_resets_are_dearer_than_other_frames(tmp_path: Path, way: str) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            wide = WindowUpdateFrame(1, window_increment=(1 << 31) - 1).serialize()
            try:
                for number in range(1_000):  # of 10,000 frames that may come at once
                    call = opened(raw, 1 + 2 * number)
                    if way == "the host's":
                        call = call[:-13] + wide[:5] + (1 + 2 * number).to_bytes(4, "big") + wide[9:]
                    await raw.stream.send_all(call)
            except trio.BrokenResourceError:
                pass
            await closed(raw)
        await refused(node, text="too many frames that carry no data")

    played(tmp_path, act)


@pytest.mark.parametrize("method", ["Health", "StreamBlocks", "Nothing"])
def test_a_call_whose_peer_goes_meanwhile_is_no_error_of_the_hosts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    accept = BoundedHandler.accept

    def accept_and_close(handler: BoundedHandler, stream: Any, *arguments: Any) -> None:
        accept(handler, stream, *arguments)
        stream._transport.close()

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            with mock.patch.object(BoundedHandler, "accept", accept_and_close):
                await raw.send(await raw.begin(method), framed(b""), end=True)
                await closed(raw)
        async with peer(node.path) as raw:
            assert (await raw.call("Health", b"")).status == 0

    with caplog.at_level(logging.WARNING):
        played(tmp_path, act)
    assert not caplog.records


def test_more_calls_at_once_than_are_allowed(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert (await raw.call("Health", b"")).status == 0
            assert raw.http.remote_settings.max_concurrent_streams == 8
            path = "/supervm.plugin.PluginHost/Register"
            said = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ]
            for number in range(9):
                frame = HeadersFrame(3 + 2 * number, data=raw.http.encoder.encode(said), flags=["END_HEADERS"])
                await raw.stream.send_all(frame.serialize())
            await closed(raw)

    played(tmp_path, act, streams=8)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ([(":method", "GET")], ":status 405"),
        ([("content-type", "text/plain")], ":status 415"),
        ([("te", "none")], ":status 400"),
        ([(":path", "/nowhere")], "grpc-status 12"),
        ([("grpc-timeout", "soon")], "grpc-status 2"),
        ([("grpc-timeout", "0n")], "grpc-status 4"),
        ([("grpc-timeout", "9" * 400 + "H")], "grpc-status 2"),
        ([("grpc-timeout", "9" * 4000 + "H")], "grpc-status 2"),
        ([(":path", "")], "grpc-status 12"),
        ([("x-bin", "abcde")], "grpc-status 3"),
    ],
)
def test_calls_that_are_none_of_grpc(tmp_path: Path, headers: list[tuple[str, str]], answer: str) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            usual = {
                ":method": "POST",
                ":scheme": "http",
                ":path": "/supervm.plugin.PluginHost/Health",
                "te": "trailers",
                "content-type": "application/grpc",
            }
            raw.http.config.validate_outbound_headers = False
            raw.http.send_headers(1, list((usual | dict(headers)).items()), end_stream="0n" not in dict(headers).values())
            raw.answers[1] = Answer()
            await raw.flush()
            name, value = answer.split()
            assert (await raw.finished(1)).headers[name] == value
            # The connection goes on.
            assert (await raw.call("Health", b"")).status == 0

    played(tmp_path, act)


def test_a_call_without_a_path_is_reset(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            raw.http.config.validate_outbound_headers = False
            raw.http.send_headers(1, [(":method", "POST")], end_stream=True)
            raw.answers[1] = Answer()
            await raw.flush()
            assert (await raw.finished(1)).reset == 1
            assert (await raw.call("Health", b"")).status == 0

    played(tmp_path, act)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            await raw.stream.send_all(HeadersFrame(1, data=b"\x00\x02\xff\xfe\x02\xff\xfe", flags=["END_HEADERS"]).serialize())
            await closed(raw)
        await refused(node, text="it breaks HTTP/2")

    played(tmp_path, act)


# ---- messages --------------------------------------------------------------------------------------------------------------


GARBAGE = {
    "a number without an end": b"\xff" * 5,
    "a number of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x01",
    "a length beyond the end": b"\x0a\x05abc",
    "no field number": b"\x00\x01",
    "a group": b"\x0b\x0c",
    "a text that is none": b"\x0a\x02\xff\xfe",
    "a number for a text": b"\x08\x01" * 3 + b"\x10\x01\x18\x01",
    "a text for a number": b"\x0a\x01x\x12\x01x",
}


@pytest.mark.parametrize(
    ("method", "garbage"),
    [
        *(("Register", name) for name in GARBAGE if name != "a text for a number"),
        *(("StreamBlocks", name) for name in ("a number without an end", "a length beyond the end", "a text for a number")),
        ("SubmitTx", "a length beyond the end"),
        ("Heartbeat", "a length beyond the end"),
    ],
)
def test_a_request_that_is_no_message(tmp_path: Path, method: str, garbage: str) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            answer = await raw.call(method, GARBAGE[garbage])
            assert answer.status == 3, answer
            assert "the request is no" in answer.message
            assert (await raw.call("Health", b"")).status == 0

    played(tmp_path, act)


@pytest.mark.parametrize("length", [(1 << 20) + 1, 0xFFFF_FFFF])
def test_a_length_above_the_limit_is_refused_before_the_body_comes(tmp_path: Path, length: int) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.large"))).messages[0])
            exchange = await raw.begin("BlockExchange")
            await raw.send(exchange, b"\0" + length.to_bytes(4, "big"))
            answer = await raw.finished(exchange)
            assert answer.status == 8
            assert f"a message of {length} bytes is above the limit of {1 << 20}" in answer.message
            assert (await raw.call("Health", b"")).status == 0
        failed = await node.seen.until(EventKind.PLUGIN_FAILED, "org.example.large")
        assert failed.data["cause"] == "protocol"

    played(tmp_path, act, message=1 << 20)


def test_a_request_has_a_smaller_limit(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            call = await raw.begin("Register")
            await raw.send(call, b"\0" + ((1 << 16) + 1).to_bytes(4, "big"))
            assert (await raw.finished(call)).status == 8

    played(tmp_path, act, request=1 << 16)


def test_a_compressed_message_is_refused(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            call = await raw.begin("Health")
            await raw.send(call, b"\1\0\0\0\0", end=True)
            assert (await raw.finished(call)).status == 12

    played(tmp_path, act)


def test_an_empty_message_is_one_whatever_follows_it(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            # Nothing follows, and the call is not ended.
            watch = await raw.begin("/grpc.health.v1.Health/Watch")
            await raw.send(watch, framed(b""))
            assert (await raw.said(watch)).messages == [b"\x08\x01"]
            # Another message follows.
            call = await raw.begin("Health")
            await raw.send(call, framed(b"") + framed(b"\x08\x01"), end=True)
            assert (await raw.finished(call)).status == 0

    played(tmp_path, act)


def test_a_stream_that_ends_inside_a_message(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.short"))).messages[0])
            exchange = await raw.begin("BlockExchange")
            await raw.send(exchange, framed(block(1))[:-1], end=True)
            answer = await raw.finished(exchange)
            assert answer.status == 3
            assert "ended inside a message" in answer.message
        await node.seen.until(EventKind.PLUGIN_FAILED, "org.example.short")

    played(tmp_path, act)


def test_a_message_that_never_comes_to_its_end(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.slow"))).messages[0])
            exchange = await raw.begin("BlockExchange")
            await raw.send(exchange, framed(block(1))[:-1])
            answer = await raw.finished(exchange)
            assert answer.status == 4
        failed = await node.seen.until(EventKind.PLUGIN_FAILED, "org.example.slow")
        assert failed.data["cause"] == "protocol"

    played(tmp_path, act, message_time=0.5)


def test_what_nobody_registered_for_holds_is_bounded(tmp_path: Path) -> None:
    """Connections that each begin a large request and never end it: the one that brings it above the bound is cut."""

    async def act(node: Served) -> None:
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with peer(node.path) as raw:
                    call = await raw.begin("Register")
                    try:
                        await raw.send(call, b"\0" + (1 << 20).to_bytes(4, "big") + bytes(900_000))
                        await closed(raw)
                    except trio.BrokenResourceError:
                        pass

            for _ in range(8):
                nursery.start_soon(hold)
            await refused(node, text="too much is held already")
            nursery.cancel_scope.cancel()

    played(tmp_path, act, unregistered_bytes=4 << 20)


@pytest.mark.parametrize(
    ("flags", "data"),
    [((), b"\0" + (1 << 20).to_bytes(4) + bytes(200_000)), (("END_STREAM",), bytes(200_000)), (("PADDED",), bytes(200_000))],
    ids=["of a long message", "the last", "padded"],
)
def test_frames_that_are_not_whole_are_held_for_nobody_too(tmp_path: Path, flags: tuple[str, ...], data: bytes) -> None:
    async def act(node: Served) -> None:
        async with trio.open_nursery() as nursery:

            async def hold() -> None:
                async with peer(node.path) as raw:
                    call = await raw.begin("Register")
                    part = DataFrame(call, data=data, flags=flags).serialize()[:-1]
                    try:
                        await raw.stream.send_all(part)
                        await closed(raw)
                    except trio.BrokenResourceError:
                        pass

            for _ in range(12):
                nursery.start_soon(hold)
            await refused(node, text="too much is held already")
            nursery.cancel_scope.cancel()

    played(tmp_path, act, unregistered_bytes=2 << 20)


# ---- whose session ---------------------------------------------------------------------------------------------------------


def test_calls_of_nobody(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            for method in ("BlockExchange", "Heartbeat"):
                assert (await raw.call(method, b"")).status == 16
            made_up = (("supervm-session", "c2VjcmV0"),)
            assert (await raw.call("BlockExchange", b"", made_up)).status == 16

    played(tmp_path, act)


def test_a_second_exchange_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.twice"))).messages[0])
            first = await raw.begin("BlockExchange")
            second = await raw.begin("BlockExchange")
            assert (await raw.finished(second)).status == 6
            assert not raw.answers[first].ended
            assert node.runtime.plugins["org.example.twice"].failure is None

    played(tmp_path, act)


# ---- peers that do not take what they get ----------------------------------------------------------------------------------


def test_a_peer_that_reads_none_of_its_answers_is_cut(tmp_path: Path) -> None:
    """It pings without end and reads nothing: the answers have a bound."""

    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            await raw.flush()
            pings = PingFrame(0, opaque_data=bytes(8)).serialize() * 1_000
            with trio.fail_after(20):
                try:
                    while True:
                        await raw.stream.send_all(pings)
                except trio.BrokenResourceError:
                    pass
        await refused(node, text="it reads none of the answers that it causes")

    played(tmp_path, act, control_rate=1e9)


def test_a_subscriber_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            raw.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
            await raw.begin("Health", end=False)
            call = await raw.begin("StreamBlocks")
            raw.http.send_data(call, framed(b""), end_stream=True)
            await raw.flush()
            await raw.until_closed()
        await refused(node, text="it took nothing for")

    played(tmp_path, act, stalled=0.5)


@asynccontextmanager
async def peer_and_its_connection(node: Served) -> AsyncGenerator[tuple[RawPeer, BoundedProtocol]]:
    """A peer, and what the host has of it."""
    remote: Any = node.runtime._remote
    known = set(remote._gate._server.protocols)
    async with peer(node.path) as raw:
        await raw.flush()
        with trio.fail_after(20):
            while not (found := remote._gate._server.protocols - known):
                await trio.sleep(0.005)
        (connection,) = found
        yield raw, connection


def test_a_connection_without_a_call_is_closed_and_its_time_begins_with_the_end_of_the_last(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer_and_its_connection(node) as (raw, connection):
            assert (await raw.call("Health", b"")).status == 0
            call = await raw.begin("StreamBlocks")
            await raw.send(call, framed(b""), end=True)
            await raw.said(call)
            much_later = time.monotonic() + 10_000
            connection.check(much_later)
            raw.http.reset_stream(call)
            await raw.flush()
            with trio.fail_after(20):
                while connection.processor.streams:
                    assert (await raw.call("Health", b"")).status == 0
            connection.check(much_later + 899)
            assert (await raw.call("Health", b"")).status == 0
            connection.check(much_later + 901)
            connection.check(much_later + 902)  # it is told once
            await raw.until_closed()
        assert [each.partition(": ")[2] for each in node.seen.refusals()] == ["it made no call for 900 s"]

    with mock.patch.object(server, "_CHECK_SECONDS", 1e6):
        played(tmp_path, act, idle=900.0)


def test_a_connection_of_short_calls_is_not_idle(tmp_path: Path) -> None:
    """None of them is under way when it is looked for them."""

    async def act(node: Served) -> None:
        async with peer_and_its_connection(node) as (raw, connection):
            assert (await raw.call("Health", b"")).status == 0
            connection.made_at = connection.busy_at = time.monotonic() - 10_000
            assert (await raw.call("Health", b"")).status == 0
            connection.check(time.monotonic() + 899)
            assert (await raw.call("Health", b"")).status == 0

    with mock.patch.object(server, "_CHECK_SECONDS", 1e6):
        played(tmp_path, act, idle=900.0)


def test_a_plugin_without_a_call_is_told_why_it_is_cut(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer_and_its_connection(node) as (raw, connection):
            wallet = register("org.example.wallet", capabilities=("submit_tx",))
            assert registered((await raw.call("Register", wallet)).messages[0])
            connection.check(time.monotonic() + 901)
            await raw.until_closed()
            failed = await node.seen.until(EventKind.PLUGIN_FAILED, "org.example.wallet")
        assert "its connection was cut: it made no call for 900 s" in failed.message
        assert failed.data["cause"] == "disconnect"

    with mock.patch.object(server, "_CHECK_SECONDS", 1e6):
        played(tmp_path, act, idle=900.0)


@pytest.mark.parametrize("way", ["takes nothing", "has room"])
def test_a_half_open_peer_is_found_gone_and_its_plugin_fails_of_it(tmp_path: Path, way: str) -> None:
    """It stops reading and answers no ping. ``takes nothing``: what was written to it before the ping is not gone either."""

    async def main() -> None:
        limits = RemoteLimits(keepalive=0.3, keepalive_timeout=2.0)
        async with (
            serving(tmp_path, limits=limits) as node,
            sdk.connect(f"unix:{node.path}", name=HONEST, version="1.0.0", chain="dev") as honest,
            peer(node.path) as gone,
        ):
            name = "org.example.gone"
            assert registered((await gone.call("Register", register(name))).messages[0])
            await gone.begin("BlockExchange")
            if way == "takes nothing":
                await gone.send(await gone.begin("StreamBlocks"), framed(b""), end=True)
            published = 0
            with trio.fail_after(30):
                while not node.seen.refusals():
                    published += 1
                    own, last = published.to_bytes(32), (published - 1).to_bytes(32)
                    await honest.publish(bytes(50_000), height=published, hash=own, parent=last, position=own)
                    await honest.wait_durable(own)
                    await trio.sleep(0.05)
                failed = await node.seen.until(EventKind.PLUGIN_FAILED)
                await closed(gone)
            (refusal,) = node.seen.of(EventKind.REMOTE_REFUSED)
            assert refusal.data["reason"] == "it answered no ping within 2 s"
            assert str(refusal.data["peer"]) in refusal.message
            assert f"{name}: its connection was cut: it answered no ping within 2 s" in failed.message
            assert (failed.plugin, failed.data["cause"]) == (name, "disconnect")
            assert published > 5
            assert node.runtime.plugins[HONEST].state is PluginState.RUNNING
            assert node.runtime.plugins[HONEST].failure is None

    trio.run(main)


# ---- many of them ----------------------------------------------------------------------------------------------------------


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """This process may have so many open meanwhile. Skips where the kernel does not let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = max(soft, count)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, max(hard, enough)))
    except (ValueError, OSError):
        pytest.skip(f"needs root: {count} open files are not allowed here ({hard} at most)")
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_connections(tmp_path: Path) -> None:
    """More of one peer than a node takes in all: those above the bound are refused, and who is in works on."""
    most, tried = 2_000, 3_000

    async def act(node: Served) -> None:
        remote: Any = node.runtime._remote
        protocols = remote._gate._server.protocols
        opened_: list[socket.socket] = []
        try:
            async with peer(node.path) as inside:
                assert (await inside.call("Health", b"")).status == 0
                for _ in range(tried):
                    one = socket.socket(socket.AF_UNIX)
                    one.connect(str(node.path))
                    opened_.append(one)
                    await trio.lowlevel.checkpoint()
                await refused(node, text=f"there are {most} connections already")
                with trio.fail_after(20):
                    while len(protocols) < most:
                        await trio.sleep(0.01)
                assert len(protocols) == most, len(protocols)
                assert (await inside.call("Health", b"")).status == 0
            for one in opened_[: tried // 2]:  # at once, and without a farewell
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()
        finally:
            for one in opened_:
                one.close()
        with trio.fail_after(20):
            while True:
                try:
                    async with peer(node.path) as raw:
                        if (await raw.call("Health", b"")).status == 0:
                            return
                except (trio.BrokenResourceError, OSError):
                    pass
                await trio.sleep(0.01)

    with open_files(3 * tried):
        played(tmp_path, act, connections=most, connections_per_peer=2 * tried)


def test_more_connections_of_one_peer_than_it_may_have(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as one, peer(node.path) as other:
            assert (await one.call("Health", b"")).status == 0
            await closed(other)
        await refused(node, text="it has 2 connections already")

    played(tmp_path, act, connections_per_peer=2)


def test_more_registrations_than_one_peer_may_have(tmp_path: Path) -> None:
    async def act(node: Served) -> None:
        async with peer(node.path) as raw:
            assert registered((await raw.call("Register", register("org.example.second"))).messages[0])
            third = await raw.call("Register", register("org.example.third"))
            assert not registered(third.messages[0])
            assert b"has 2 plugins registered already" in third.messages[0]

    played(tmp_path, act, registrations_per_peer=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root becomes another user")
def test_users_that_are_not_named_are_refused_by_the_kernel_s_word(tmp_path: Path) -> None:
    """A socket that is open to some is open to all by its mode: who comes is asked of the kernel."""
    program = (
        "import os, socket, sys\n"
        "os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n"
        "one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); one.settimeout(20)\n"
        "sys.exit(0 if one.recv(1) else 7)\n"
    )

    async def main() -> None:
        with short_folder() as short:
            short.chmod(0o755)
            address = UnixAddress(short / "open", frozenset({54_321}))
            async with serving(tmp_path, listen=(address,)) as node:
                for user, status in ((54_321, 0), (12_345, 7)):
                    command = [sys.executable, "-c", program, str(address.path), str(user)]
                    found = await trio.run_process(command, check=False, stderr=None)
                    assert found.returncode == status, user
                await refused(node, text="user 12345 may not connect")

    trio.run(main)


def test_a_socket_is_closed_to_others_and_leaves_with_its_node(tmp_path: Path) -> None:
    async def main() -> Path:
        async with serving(tmp_path) as node:
            mode = await trio.to_thread.run_sync(node.path.stat)
            assert stat.S_IMODE(mode.st_mode) == 0o600
            return node.path

    assert not trio.run(main).exists()


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    async def main(path: Path) -> None:
        async with serving(tmp_path, listen=(UnixAddress(path),)):
            pass

    with short_folder() as short:
        (short / "file").write_text("kept")
        with pytest.raises(ConfigurationError, match="no socket"):
            trio.run(main, short / "file")
        assert (short / "file").read_text() == "kept"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(short / "used"))
            other.listen()
            with pytest.raises(ConfigurationError, match="another process listens there"):
                trio.run(main, short / "used")
        trio.run(main, short / "used")  # nobody listens any more
