"""What a child prints, as log lines, with a bound on how much is kept."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from supervm_rt._abi import MESSAGE_LOG, Message, printable
from supervm_rt.transports.allowance import Allowance

MAX_LINE_BYTES = 4_096
MAX_LINES = 1_024
"""Lines that wait to be taken; a further one is dropped and counted."""
MAX_LAST_BYTES = 2_048
"""So much of the end of each stream is kept, to say why a process ended."""
BYTES_A_SECOND = 1 << 20
BYTES_AT_ONCE = 4 << 20
"""Of what is looked into; beyond, it is dropped unseen, and counted."""
FLOOD_PAUSE = 0.01
"""Seconds between two reads of a stream that is above this."""
_LINE_BYTES = 256
"""A line costs as much as so many bytes more."""
_READ_BYTES = 4_096
_PIPE_BYTES = 65_536


class Output:
    """One stream of a child, read without ever waiting."""

    def __init__(self, descriptor: int, name: str, level: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self.dropped = 0
        """Lines."""
        self.flooded = False
        """What was read last was beyond what is looked into: no need to read again at once."""
        self._prefix = f"{name}: "
        self._level = level
        self._rest = bytearray()
        self._skipping = False
        self._lines: deque[bytes] = deque()
        self._last = bytearray()
        self._allowance = Allowance(rate=BYTES_A_SECOND, burst=BYTES_AT_ONCE)

    def drain_all(self) -> None:
        """Reads what a process left that has ended."""
        for _ in range(_PIPE_BYTES // _READ_BYTES + 1):
            self.drain()

    def drain(self) -> None:
        """Reads some of what is there: a child that never stops printing gets no more of the host's time than others."""
        if self.ended:
            return
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self._line(bytes(self._rest))
            self._rest.clear()
            return
        self._last += data
        del self._last[:-MAX_LAST_BYTES]
        ends = data.count(b"\n")
        cost = len(data) + ends * _LINE_BYTES
        self.flooded = self._allowance.take(cost) < cost
        if self.flooded:
            self._drop(data, ends)
            return
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                self._line(bytes(self._rest) + line)
            self._rest.clear()
        if self._skipping:
            return
        self._rest += rest
        if len(self._rest) > MAX_LINE_BYTES:  # a line without an end is cut, and its tail dropped
            self._line(bytes(self._rest))
            self._rest.clear()
            self._skipping = True

    def _drop(self, data: bytes, ends: int) -> None:
        """Drops lines without a look at them; the last one's tail follows it."""
        begun = not data.endswith(b"\n")
        self.dropped += ends + begun - self._skipping
        self._rest.clear()
        self._skipping = begun

    def _line(self, line: bytes) -> None:
        line = line.rstrip(b"\r")[:MAX_LINE_BYTES]
        if not line:
            return
        if len(self._lines) >= MAX_LINES:
            self.dropped += 1
        else:
            self._lines.append(line)

    @property
    def waits(self) -> bool:
        """Whether lines wait to be taken."""
        return bool(self._lines)

    def take(self) -> list[Message]:
        """The lines since the last time."""
        taken = [Message(MESSAGE_LOG, self._level, self._prefix + printable(line), 0.0, b"") for line in self._lines]
        self._lines.clear()
        return taken

    def last_line(self) -> str:
        """The last line that it printed."""
        with contextlib.suppress(IndexError):
            return printable(bytes(self._last).strip().splitlines()[-1])
        return ""
