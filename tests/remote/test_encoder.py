"""Events of a feed are written as Google's protobuf writes them, whatever is in them, and however they are divided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.remote_differential.reference import BlockMessage
from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.transports.remote._frames import tell

CODES = {Step.NEW: 0, Step.UNDO: 1, Step.FINAL: 2}
WHOLE = 1 << 40
APART = 16 << 10
"""From this length on a payload is a part of its own."""


@dataclass
class Event:
    """As a feed tells it."""

    chain: str
    step: Step
    block: BlockRef
    parent: bytes
    time: int
    raw: bytes | None
    cursor: str
    ir: None = None


payloads = st.one_of(
    st.none(), st.binary(max_size=300), st.sampled_from([APART - 1, APART, APART + 1, 70_000]).map(lambda size: b"\xb0" * size)
)
events = st.builds(
    Event,
    st.sampled_from(["dev", "bitcoin", "né", "鎖"]),
    st.sampled_from(list(Step)),
    st.builds(BlockRef, st.binary(max_size=64), st.integers(0, 2**63 - 1) | st.integers(0, 300)),
    st.binary(max_size=64),
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300),
    payloads,
    st.text(max_size=200),
)


def by_google(event: Event, json: str | None = None, ir: bytes | None = None) -> Any:
    message = BlockMessage(
        chain=event.chain,
        height=event.block.height,
        block_bytes=event.raw or b"",
        block_ir_json=json or "",
        hash=event.block.hash,
        parent=event.parent,
        step=CODES[event.step],
        cursor=event.cursor,
    )
    message.timestamp.seconds = event.time
    if ir:
        message.block_ir.ParseFromString(ir)
    return message


def messages(data: bytes) -> list[bytes]:
    """What gRPC reads out of it."""
    found, place = [], 0
    while place < len(data):
        assert data[place] == 0
        begin = place + 5
        place = begin + int.from_bytes(data[place + 1 : begin])
        found.append(data[begin:place])
    assert place == len(data)
    return found


def told(events: list[Event], most: int = WHOLE, **more: Any) -> list[bytes]:
    place, out = 0, []
    while place < len(events):
        parts, size, following = tell(events, place, most=most, **more)
        data = b"".join(parts)
        assert len(data) == size
        assert following > place
        place = following
        out += messages(data)
    return out


@settings(max_examples=200, deadline=None)
@given(st.lists(events, min_size=1, max_size=12), st.integers(0, 5), st.sampled_from([1, 1000, 100_000, WHOLE]))
def test_messages_are_googles_to_the_byte(said: list[Event], batch: int, most: int) -> None:
    items: list[bytes] = []
    for message in told(said, most, batch=batch):
        read = BlockMessage.FromString(message)
        assert read.SerializeToString() == message
        if read.HasField("batch"):
            assert 2 <= len(read.batch.blocks) <= batch
            items += [item.SerializeToString() for item in read.batch.blocks]
        else:
            items.append(message)
    assert items == [by_google(event).SerializeToString() for event in said]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(events, st.none() | st.text(max_size=50), st.none() | st.integers(1, 2**32)), min_size=1, max_size=5))
def test_the_ir_goes_along_in_either_form(said: list[tuple[Event, str | None, int | None]]) -> None:
    irs = []
    for _, _, height in said:
        ir = BlockMessage().block_ir
        ir.height = height or 0
        irs.append(ir.SerializeToString() if height else None)
    texts = [text for _, text, _ in said]
    found = told([event for event, _, _ in said], batch=0, json=texts, ir=irs)
    assert found == [by_google(event, text, ir).SerializeToString() for (event, text, _), ir in zip(said, irs, strict=True)]


def event(**more: Any) -> Event:
    said: dict[str, Any] = {
        "chain": "dev",
        "step": Step.NEW,
        "block": BlockRef(b"h", 1),
        "parent": b"p",
        "time": 5,
        "raw": b"r",
        "cursor": "c",
    }
    return Event(**said | more)


def test_a_large_payload_is_sent_from_where_it_lies() -> None:
    raw = bytes(APART)
    parts, _, _ = tell([event(), event(raw=raw), event()], 0, batch=3, most=WHOLE)
    assert sum(part is raw for part in parts) == 1


def test_blocks_before_a_second_are_left_out() -> None:
    said = [event(time=time, cursor=str(time)) for time in (9, 10, 11)]
    found = [BlockMessage.FromString(message).cursor for message in told(said, batch=0, since=10.0)]
    assert found == ["10", "11"]
    assert tell(said[:1], 0, batch=0, most=WHOLE, since=10.0) == ([], 0, 1)
    assert tell(said, 3, batch=0, most=WHOLE) == ([], 0, 3)


@pytest.mark.parametrize(
    "more",
    [{"chain": b"dev"}, {"raw": bytearray(b"r")}, {"parent": "p"}, {"cursor": None}, {"block": BlockRef("h", 1)}],  # type: ignore[arg-type]
)
def test_what_is_no_event_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        tell([event(), event(**more)], 0, batch=0, most=WHOLE)


@pytest.mark.parametrize("more", [{"time": 2**63}, {"block": BlockRef(b"h", -1)}, {"block": BlockRef(b"h", 2**64)}])
def test_what_does_not_fit_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(OverflowError):
        tell([event(**more)], 0, batch=0, most=WHOLE)


def test_text_that_is_none_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        tell([event(cursor="\ud800")], 0, batch=0, most=WHOLE)
