"""What a child prints costs the host little, whatever it prints: so much at once, so much a second, the rest is counted."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator

import pytest

from supervm_rt.transports.native.child.output import BYTES_AT_ONCE, Output

PIPE = 65_536


class Printed:
    """A stream and its other end."""

    def __init__(self) -> None:
        reads, self.writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.output = Output(reads, "stdout", 2)

    def left(self) -> int:
        """Bytes that wait to be read."""
        return int(struct.unpack("i", fcntl.ioctl(self.output.descriptor, termios.FIONREAD, bytes(4)))[0])

    def say(self, data: bytes) -> None:
        """Prints it, while it is drained."""
        view = memoryview(data)
        while view or self.left():
            if view and self.left() < PIPE // 2:
                view = view[os.write(self.writes, view[: PIPE // 2]) :]
            self.output.drain()


@pytest.fixture
def printed() -> Iterator[Printed]:
    made = Printed()
    yield made
    os.close(made.output.descriptor)
    os.close(made.writes)


def lines(printed: Printed) -> list[str]:
    return [message.text.removeprefix("stdout: ") for message in printed.output.take()]


def test_one_look_takes_little(printed: Printed) -> None:
    os.write(printed.writes, bytes([10]) * PIPE)
    printed.output.drain()
    assert printed.left() >= PIPE - 4_096
    printed.output.drain_all()
    assert printed.left() == 0


def test_what_is_left_of_one_that_ended_is_read(printed: Printed) -> None:
    said = [f"line {number}" for number in range(1_000)]
    os.write(printed.writes, "\n".join(said).encode())
    printed.output.drain_all()
    assert lines(printed) == said[:-1]
    assert printed.output.dropped == 0


@pytest.mark.parametrize("line", [b"", b"x", b"y" * 1_000], ids=["empty", "short", "long"])
def test_a_flood_is_dropped_unseen_and_counted(printed: Printed, line: bytes) -> None:
    number = 4 * BYTES_AT_ONCE // (len(line) + 1 + 256)
    printed.say((line + b"\n") * number)
    assert printed.output.flooded
    kept = len(lines(printed))
    assert printed.output.dropped > number // 4
    if line:
        assert printed.output.dropped + kept == number


def test_a_line_that_is_dropped_is_dropped_to_its_end(printed: Printed) -> None:
    printed.say(b"z" * (2 * BYTES_AT_ONCE))
    assert printed.output.flooded
    assert lines(printed) == ["z" * 4_096], "cut, and told"
    dropped = printed.output.dropped
    assert dropped == 0
    printed.say(b"z" * 10 + b"\n" + b"next")
    assert dropped <= printed.output.dropped <= 1
