"""What a child prints: lines, and how much of them is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from supervm_rt._abi import MESSAGE_LOG
from supervm_rt.transports.native.child.output import MAX_LAST_BYTES, MAX_LINE_BYTES, MAX_LINES, Output


@dataclass
class Pipe:
    """An Output, and the end that a child would write to."""

    output: Output
    end: int

    def say(self, data: bytes) -> list[str]:
        """Writes it, reads it all, and gives the lines."""
        lines: list[str] = []
        for start in range(0, len(data), 16_384):
            os.write(self.end, data[start : start + 16_384])
            self.output.drain_all()
            lines += self.take()
        return lines

    def take(self) -> list[str]:
        messages = self.output.take()
        assert {message.kind for message in messages} <= {MESSAGE_LOG}
        assert {message.level for message in messages} <= {2}
        return [message.text for message in messages]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    made = Pipe(Output(reading, "stdout", 2), writing)
    yield made
    if not made.output.ended:
        os.close(writing)
    os.close(reading)


def test_lines_are_joined_and_split_wherever_they_were_cut(pipe: Pipe) -> None:
    assert pipe.say(b"fir") == []
    assert pipe.say(b"st\r\nsecond\n\nthi") == ["stdout: first", "stdout: second"], "an empty one is none"
    assert pipe.say(b"rd \x1b[0m\xff\n") == ["stdout: third \\x1b[0m\ufffd"]
    assert not pipe.output.waits
    os.write(pipe.end, b"the last, without an end")
    os.close(pipe.end)
    pipe.output.drain()
    pipe.output.drain()
    assert pipe.output.ended
    assert pipe.take() == ["stdout: the last, without an end"]
    assert pipe.output.dropped == 0


def test_a_line_is_cut_where_it_is_too_long(pipe: Pipe) -> None:
    lines = pipe.say(b"a" * (10 * MAX_LINE_BYTES) + b"b\n" + b"c" * (MAX_LINE_BYTES + 1) + b"\nnext\n")
    assert lines == [f"stdout: {'a' * MAX_LINE_BYTES}", f"stdout: {'c' * MAX_LINE_BYTES}", "stdout: next"]


def test_a_line_without_an_end_takes_no_room(pipe: Pipe) -> None:
    lines = pipe.say(b"a" * (1 << 20))
    assert lines == [f"stdout: {'a' * MAX_LINE_BYTES}"]
    assert len(pipe.output._rest) <= MAX_LINE_BYTES
    assert pipe.output.last_line() == "a" * MAX_LAST_BYTES


def test_lines_that_nobody_takes_are_dropped_and_counted(pipe: Pipe) -> None:
    for number in range(3 * MAX_LINES):
        os.write(pipe.end, b"%d\n" % number)
        pipe.output.drain()
    assert pipe.output.waits
    assert pipe.take() == [f"stdout: {number}" for number in range(MAX_LINES)]
    assert pipe.output.dropped == 2 * MAX_LINES
    assert pipe.say(b"after\n") == ["stdout: after"], "there is room again"
    assert pipe.output.last_line() == "after"


def test_nothing_to_read_is_no_end(pipe: Pipe) -> None:
    pipe.output.drain()
    assert not pipe.output.ended
    assert pipe.output.last_line() == ""
