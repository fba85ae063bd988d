"""What a child prints, as log lines, with a bound on how much is kept."""

from __future__ import annotations

import contextlib
import os
from collections import deque

from supervm_rt._abi import MESSAGE_LOG, Message, printable

MAX_LINE_BYTES = 4_096
MAX_LINES = 1_024
"""Lines that wait to be taken; a further one is dropped and counted."""
MAX_LAST_BYTES = 2_048
"""So much of the end of each stream is kept, to say why a process ended."""
_READ_BYTES = 65_536


class Output:
    """One stream of a child, read without ever waiting."""

    def __init__(self, descriptor: int, name: str, level: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self.dropped = 0
        self._prefix = f"{name}: "
        self._level = level
        self._rest = bytearray()
        self._skipping = False
        self._lines: deque[bytes] = deque()
        self._last = bytearray()

    def drain(self) -> None:
        """Reads what is there, one pipe's worth at most: a child that never stops printing gets no more of the host's time."""
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
