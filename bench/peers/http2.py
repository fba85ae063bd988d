"""A client for the bench that costs next to nothing: HTTP/2 frames that were made before, written and counted."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST = (1 << 31) - 1
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
END_STREAM = 1
HEADER = struct.Struct(">xHBBI")
"""The lower 16 bits of the length, type, flags and stream."""


def frame(kind: int, flags: int, stream: int, data: bytes = b"") -> bytes:
    """One frame."""
    return len(data).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + data


class Client:
    """One connection with calls one after another. What it receives has no window; what it sends keeps the server's."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.encoder = Encoder()
        self.next = 1
        self.stream = 0
        self.place = memoryview(bytearray(1 << 20))
        self.buffer = bytearray()
        self.skip = 0
        """So many bytes of a data frame are to come."""
        self.ends = False
        """It is the last one of its call."""
        self.window = self.initial = 65_535
        self.stream_window = 0
        self.largest = 16_384
        self.received = 0
        self.ended = False
        settings = (4).to_bytes(2, "big") + LARGEST.to_bytes(4, "big") + (5).to_bytes(2, "big") + (1 << 20).to_bytes(4, "big")
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.socket.sendall(frame(WINDOW, 0, 0, (LARGEST - 65_535).to_bytes(4, "big")))

    def begin(self, method: str) -> int:
        """A call."""
        stream, self.next = self.next, self.next + 2
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/supervm.plugin.PluginHost/{method}"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.socket.sendall(frame(HEADERS, 4, stream, self.encoder.encode(headers)))
        self.stream_window = self.initial
        self.stream, self.received, self.ended = stream, 0, False
        return stream

    def hear(self) -> None:
        """Takes what comes next. The bodies of data frames are counted, and looked at no further."""
        count = self.socket.recv_into(self.place)
        if not count:
            raise ConnectionError("the server ended the connection")
        at = min(self.skip, count)
        self.skip -= at
        if not self.skip and self.ends:
            self.ended, self.ends = True, False
        buffer = self.buffer
        buffer += self.place[at:count]
        at = 0
        while len(buffer) - at >= 9:
            length, kind, flags, stream = HEADER.unpack_from(buffer, at)
            length |= buffer[at] << 16
            end = at + 9 + length
            ends = kind in {DATA, HEADERS} and bool(flags & END_STREAM)
            if kind == DATA:
                self.received += length
                if end > len(buffer):
                    self.skip, self.ends = end - len(buffer), ends
                    buffer.clear()
                    return
            elif end > len(buffer):
                break
            else:
                self._control(kind, flags, stream, bytes(buffer[at + 9 : end]))
            self.ended = self.ended or ends
            at = end
        del buffer[:at]

    def _control(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == WINDOW:
            more = int.from_bytes(body, "big")
            if stream == 0:
                self.window += more
            else:
                self.stream_window += more
        elif kind == SETTINGS and not flags & 1:
            for at in range(0, len(body), 6):
                value = int.from_bytes(body[at + 2 : at + 6], "big")
                if body[at + 1] == 4:
                    self.stream_window += value - self.initial
                    self.initial = value
                elif body[at + 1] == 5:
                    self.largest = min(value, 1 << 20)
            self.socket.sendall(frame(SETTINGS, 1, 0))
        elif kind == PING and not flags & 1:
            self.socket.sendall(frame(PING, 1, 0, body))
        elif kind == RESET and stream == self.stream:
            raise ConnectionError(f"the server reset the call ({int.from_bytes(body, 'big')})")

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Data, as the windows allow."""
        place = 0
        while place < len(data):
            room = min(self.window, self.stream_window, 256 << 10)
            if room <= 0:
                self.hear()
                continue
            parts, budget = [], min(room, len(data) - place)
            while budget > 0:
                length = min(budget, self.largest)
                parts.append(frame(DATA, 0, stream, data[place : place + length]))
                place += length
                budget -= length
                self.window -= length
                self.stream_window -= length
            self.socket.sendall(b"".join(parts))
        if end:
            self.socket.sendall(frame(DATA, END_STREAM, stream))

    def finish(self) -> int:
        """Waits for the end of the call; how many bytes came."""
        while not self.ended:
            self.hear()
        return self.received

    def close(self) -> None:
        """Ends the connection."""
        self.socket.close()
