"""Frames say what the plugin said, and pin, copy and free their place in the ring (clause D2)."""

from __future__ import annotations

import collections
import ctypes as c
import gc
import os
import resource
import select
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt._abi import KIND_BLOCK, KIND_END_OF_INPUT, KIND_FINALIZED, KIND_REORG, Frame
from supervm_rt.errors import PluginError
from tests.abi.support import (
    HEIGHT_UNKNOWN,
    INVALID_ARGUMENT,
    OK,
    TIME_UNKNOWN,
    TOO_LARGE,
    WOULD_BLOCK,
    Block,
    Driver,
    Loaded,
    Publisher,
    Reorg,
    block_of,
    eventually,
    running,
)

CAPACITY = 1 << 16


def fill(loaded: Loaded, payload: bytes) -> int:
    """How many blocks fit until the ring is full."""
    count = 0
    while (status := loaded.host.try_publish(block_of(payload, height=count))) == OK:
        count += 1
    assert status == WOULD_BLOCK
    return count


def test_a_frame_says_all_that_the_plugin_said(loaded: Loaded) -> None:
    block = block_of(
        b"payload",
        height=7,
        hash_=b"h" * 32,
        parent=b"p" * 20,
        position=b"file 3, offset 9",
        weight=2**255 + 5,
        time_=-1,
        final_height=3,
    )
    assert loaded.host.publish(block) == OK
    [frame] = loaded.frames()
    assert frame.kind == KIND_BLOCK
    assert (frame.height, frame.final_height, frame.time, frame.weight) == (7, 3, -1, 2**255 + 5)
    assert (frame.hash, frame.parent, frame.position) == (b"h" * 32, b"p" * 20, b"file 3, offset 9")
    assert (frame.to_height, frame.orphans, frame.generation) == (None, [], 1)
    assert (len(frame), bytes(frame), bytes(memoryview(frame))) == (7, b"payload", b"payload")
    assert memoryview(frame).readonly


def test_what_was_not_said_is_none_or_empty(loaded: Loaded) -> None:
    assert loaded.host.publish(block_of()) == OK
    [frame] = loaded.frames()
    assert [frame.height, frame.final_height, frame.time, frame.weight, frame.to_height] == [None] * 5
    assert [frame.hash, frame.parent, frame.position, bytes(frame), memoryview(frame).tobytes()] == [b""] * 5


def test_reorg_finalized_and_end_of_input_keep_their_order(loaded: Loaded) -> None:
    sink = loaded.host.sink
    reorg = Reorg(
        struct_size=56,
        orphan_length=4,
        from_height=9,
        to_height=7,
        orphans=b"tip.prev",
        orphan_count=2,
        position=b"p",
        position_length=1,
    )
    assert sink.reorg(sink.host, reorg) == OK
    assert sink.finalized(sink.host, b"final", 5, 7) == OK
    assert sink.end_of_input(sink.host) == OK
    first, second, third = loaded.frames()
    assert [first.kind, second.kind, third.kind] == [KIND_REORG, KIND_FINALIZED, KIND_END_OF_INPUT]
    assert (first.height, first.to_height, first.orphans, first.position) == (9, 7, [b"tip.", b"prev"], b"p")
    assert (second.height, second.hash, second.orphans, second.to_height) == (7, b"final", [], None)
    assert (third.height, len(third)) == (None, 0)


BREAKAGES: list[dict[str, Any]] = [
    {"struct_size": 0},
    {"struct_size": 95},
    {"flags": 1},
    {"reserved": 1},
    {"hash_length": 65},
    {"parent_length": 65},
    {"position_length": 257},
    {"hash": None, "hash_length": 1},
    {"parent": None, "parent_length": 1},
    {"position": None, "position_length": 1},
    {"payload": None, "payload_length": 1},
    {"hash_length": 2**32 - 1},
]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=str)
def test_a_broken_block_is_refused_and_nothing_is_published(loaded: Loaded, breakage: dict[str, Any]) -> None:
    block = block_of(b"payload", hash_=b"h", parent=b"p", position=b"q")
    for name, value in breakage.items():
        setattr(block, name, value)
    assert loaded.host.publish(block) == INVALID_ARGUMENT
    assert loaded.host.try_publish(block) == INVALID_ARGUMENT
    assert loaded.frames() == []


def test_a_newer_and_longer_struct_is_taken(loaded: Loaded) -> None:
    block = block_of(b"x")
    block.struct_size = 4096
    assert loaded.host.publish(block) == OK


def test_nulls_are_refused_everywhere(loaded: Loaded) -> None:
    sink = loaded.host.sink
    assert sink.publish(sink.host, None) == INVALID_ARGUMENT
    assert sink.publish(None, block_of()) == INVALID_ARGUMENT
    assert sink.publish(sink.host + 8, block_of()) == INVALID_ARGUMENT
    assert sink.reserve(sink.host, 8, None) == INVALID_ARGUMENT
    assert sink.reorg(sink.host, None) == INVALID_ARGUMENT
    assert sink.finalized(sink.host, None, 4, 1) == INVALID_ARGUMENT
    assert sink.finalized(sink.host, None, 0, HEIGHT_UNKNOWN) == INVALID_ARGUMENT
    assert sink.publish_release(sink.host, block_of(), None, None) == INVALID_ARGUMENT
    assert sink.end_of_input(None) == INVALID_ARGUMENT
    assert loaded.host.config.get(None, None, None) == INVALID_ARGUMENT
    assert loaded.host.resume.get(loaded.host.resume.host, None, None) == INVALID_ARGUMENT
    assert loaded.host.heartbeat.beat(None) == INVALID_ARGUMENT
    assert loaded.host.extension(b"") is None
    assert loaded.host.vtable.host_get_extension(None) is None
    assert loaded.frames() == []


REORGS: list[dict[str, Any]] = [
    {"struct_size": 8},
    {"from_height": 1, "to_height": 2},
    {"from_height": HEIGHT_UNKNOWN},
    {"orphan_length": 65},
    {"orphan_length": 0},
    {"orphans": None},
    {"position_length": 257},
    {"reserved": 1},
]


@pytest.mark.parametrize("breakage", REORGS, ids=str)
def test_a_broken_reorg_is_refused(loaded: Loaded, breakage: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"struct_size": 56, "orphan_length": 4, "from_height": 9, "to_height": 7}
    fields |= {"orphans": b"abcd", "orphan_count": 1}
    sink = loaded.host.sink
    assert sink.reorg(sink.host, Reorg(**fields | breakage)) == INVALID_ARGUMENT
    assert sink.reorg(sink.host, Reorg(**fields | {"orphan_count": 2**62})) == TOO_LARGE
    assert loaded.frames() == []


def test_a_payload_that_can_never_fit_is_too_large_and_the_largest_fits(loaded: Loaded) -> None:
    assert loaded.host.sink.max_payload == loaded.plugin.max_payload == CAPACITY - 512
    largest = bytes(range(256)) * (CAPACITY // 256)
    fitting = largest[: loaded.plugin.max_payload]
    block = block_of(fitting, hash_=b"h" * 64, parent=b"p" * 64, position=b"q" * 256, weight=1)
    assert loaded.host.publish(block_of(fitting + b"x")) == TOO_LARGE
    assert loaded.host.reserve(len(fitting) + 1)[0] == TOO_LARGE
    for length in (2**63, 2**64 - 1, 2**64 - 64):
        too_long = block_of(b"x")
        too_long.payload_length = length
        assert loaded.host.publish(too_long) == TOO_LARGE
        assert loaded.host.reserve(length)[0] == TOO_LARGE
    for _ in range(3):
        assert loaded.host.publish(block) == OK
        [frame] = loaded.frames()
        assert bytes(frame) == fitting
        assert frame.position == b"q" * 256
        del frame


def test_a_frame_cannot_be_made_out_of_nothing() -> None:
    with pytest.raises(TypeError, match="come from"):
        Frame()
    empty = Frame.__new__(Frame)
    assert (len(empty), bytes(empty), empty.hash, empty.position, empty.orphans) == (0, b"", b"", b"", [])
    with pytest.raises(BufferError):
        memoryview(empty)


def test_read_stops_at_its_bounds(loaded: Loaded) -> None:
    for number in range(6):
        assert loaded.host.publish(block_of(b"x" * 100, height=number)) == OK
    assert loaded.plugin.read(0) == []
    assert [frame.height for frame in loaded.plugin.read(2)] == [0, 1]
    assert [frame.height for frame in loaded.plugin.read(9, 150)] == [2, 3]
    assert [frame.height for frame in loaded.plugin.read(9, 1)] == [4]
    assert [frame.height for frame in loaded.plugin.read(9)] == [5]
    assert loaded.plugin.read(9) == []


# Places


def test_released_frames_give_their_place_back_in_any_order(loaded: Loaded) -> None:
    rounds = fill(loaded, b"x" * 1000)
    frames = loaded.frames()
    assert loaded.plugin.statistics().pinned_frames == rounds == len(frames)
    del frames[1::2]
    assert loaded.plugin.statistics().used > CAPACITY // 2
    frames.clear()
    statistics = loaded.plugin.statistics()
    assert (statistics.used, statistics.pinned_frames, statistics.copied_out) == (0, 0, 0)
    assert fill(loaded, b"x" * 1000) == rounds


def test_kept_frames_are_copied_out_when_the_ring_needs_their_place(loaded: Loaded) -> None:
    kept: list[Frame] = []
    for number in range(500):
        payload = number.to_bytes(2, "big") * 500
        while loaded.host.try_publish(block_of(payload, height=number, hash_=payload[:32], position=payload[:4])) == WOULD_BLOCK:
            kept += loaded.frames()
    kept += loaded.frames()
    assert loaded.plugin.statistics().copied_out > 400
    assert len(kept) == 500
    for number, frame in enumerate(kept):
        payload = number.to_bytes(2, "big") * 500
        assert (frame.height, bytes(frame), frame.hash, frame.position) == (number, payload, payload[:32], payload[:4])
        assert bytes(memoryview(frame)) == payload


def test_an_exported_buffer_pins_its_place(loaded: Loaded) -> None:
    assert loaded.host.publish(block_of(b"pinned" * 100)) == OK
    [frame] = loaded.frames()
    view = memoryview(frame)
    published = fill(loaded, b"y" * 1000)
    while loaded.frames():
        pass
    assert loaded.plugin.statistics().used > CAPACITY // 2
    # Everything behind the pin was read and dropped; only the pin keeps the tail.
    assert fill(loaded, b"z" * 1000) == 0
    assert bytes(view) == b"pinned" * 100
    view.release()
    del frame
    assert loaded.plugin.statistics().used == 0
    assert fill(loaded, b"z" * 1000) == published + 1


@pytest.mark.own_process
def test_a_forked_child_leaves_the_ring_to_its_parent(loaded: Loaded) -> None:
    for number in range(3):
        assert loaded.host.publish(block_of(bytes([65 + number]) * 15_000)) == OK
    frames = loaded.frames()
    views = [memoryview(frame) for frame in frames]
    child = os.fork()
    if child == 0:  # as an interpreter does that ends
        for view in views:
            view.release()
        frames.clear()
        loaded.plugin.begin_stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    fill(loaded, b"z" * 15_000)
    assert [bytes(view[:2]) for view in views] == [b"AA", b"BB", b"CC"]
    for view in views:
        view.release()


def test_exports_beyond_half_of_the_ring_are_copies(loaded: Loaded) -> None:
    count = fill(loaded, b"x" * 1000)
    frames = loaded.frames()
    views = [memoryview(frame) for frame in frames]
    statistics = loaded.plugin.statistics()
    assert count // 3 < statistics.copied_out <= count // 2 + 2
    assert all(bytes(view) == b"x" * 1000 for view in views)
    del frames
    again = [memoryview(view) for view in views]
    views.clear()
    assert loaded.plugin.statistics().used > 0
    again.clear()
    assert loaded.plugin.statistics().used == 0


def test_a_frame_can_be_exported_many_times(loaded: Loaded) -> None:
    assert loaded.host.publish(block_of(b"abc")) == OK
    [frame] = loaded.frames()
    views = [memoryview(frame) for _ in range(5)]
    del frame
    while views:
        assert bytes(views.pop()) == b"abc"
        assert loaded.plugin.statistics().pinned_frames == (1 if views else 0)


def test_a_publisher_waits_for_room_and_goes_on_when_there_is_some(loaded: Loaded, driver: Driver) -> None:
    publisher = Publisher(driver, loaded.host, count=2000, length=1000)
    eventually(lambda: loaded.plugin.statistics().waits > 0)
    assert publisher.published() < 100
    heights: list[int | None] = []
    while len(heights) < 2000:
        heights += [frame.height for frame in loaded.plugin.read(7)]
    assert publisher.join() == OK
    assert heights == list(range(2000))


def test_a_waiting_publisher_wakes_a_host_that_only_keeps_frames(loaded: Loaded, driver: Driver) -> None:
    """All frames are kept, the host sleeps, and the publisher lacks room: the sleep ends and the frames are copied out."""
    publisher = Publisher(driver, loaded.host, count=1000, length=1000)
    kept: list[Frame] = []
    while len(kept) < 1000:
        kept += loaded.plugin.read(5)
        if len(kept) < 1000 and loaded.plugin.prepare_wait():
            wait_readable(loaded)
            loaded.plugin.finish_wait()
    assert publisher.join() == OK
    assert [frame.height for frame in kept] == list(range(1000))


def test_a_pin_that_ends_while_the_host_sleeps_lets_the_publisher_go_on(loaded: Loaded, driver: Driver) -> None:
    publisher = Publisher(driver, loaded.host, count=200, length=1000)
    eventually(lambda: loaded.plugin.statistics().waits == 1)
    frames = loaded.frames()
    view = memoryview(frames[0])
    assert loaded.plugin.prepare_wait()
    stuck = publisher.published()
    del frames
    assert publisher.published() == stuck
    view.release()
    wait_readable(loaded)
    loaded.plugin.finish_wait()
    assert len(loaded.frames()) > 0
    while publisher.published() < 200:
        loaded.frames()
    assert publisher.join() == OK


def wait_readable(loaded: Loaded) -> None:
    assert select.select([loaded.plugin.event_fd], [], [], 20)[0], "nobody woke the host"


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_kept_dropped_and_exported_the_content_stays(mailbox: bytes, data: st.DataObject) -> None:
    """A model of what is alive is driven beside the ring."""
    with running(mailbox, ring_bytes=CAPACITY, side_ring_bytes=CAPACITY) as loaded:
        published = 0
        unread: collections.deque[tuple[int, bytes, bytes]] = collections.deque()
        alive: list[tuple[tuple[int, bytes, bytes], Frame, memoryview | None]] = []
        for _ in range(data.draw(st.integers(1, 60))):
            match data.draw(st.sampled_from(["publish", "publish", "reserve", "read", "drop", "export", "unexport"])):
                case "publish" | "reserve" as how:
                    length = data.draw(st.integers(0, 200) | st.integers(0, CAPACITY - 512))
                    payload = (published.to_bytes(4, "big") * (length // 4 + 1))[:length]
                    tail = payload[: data.draw(st.integers(0, 64))]
                    block = block_of(payload, height=published, hash_=tail, position=tail)
                    status = loaded.host.try_publish(block) if how == "publish" else reserve_and_commit(loaded, block, payload)
                    assert status in {OK, WOULD_BLOCK}
                    if status == OK:
                        unread.append((published, payload, tail))
                        published += 1
                case "read":
                    frames = loaded.plugin.read(data.draw(st.integers(1, 5)), CAPACITY)
                    alive.extend((unread.popleft(), frame, None) for frame in frames)
                    frames.clear()
                case "drop" if alive:
                    alive.pop(data.draw(st.integers(0, len(alive) - 1)))
                case ("export" | "unexport") as what if alive:
                    index = data.draw(st.integers(0, len(alive) - 1))
                    view = memoryview(alive[index][1]) if what == "export" else None
                    alive[index] = (*alive[index][:2], view)
            for (height, payload, tail), kept, view in alive:
                assert (kept.height, kept.hash, kept.position, bytes(kept)) == (height, tail, tail, payload)
                assert view is None or bytes(view) == payload
            kept = view = None  # type: ignore[assignment] # no name may keep a frame alive
        alive.clear()
        gc.collect()
        assert [frame.height for frame in loaded.frames()] == [height for height, _, _ in unread]
        statistics = loaded.plugin.statistics()
        assert (statistics.used, statistics.pinned_frames) == (0, 0)
        assert statistics.frames == published


def reserve_and_commit(loaded: Loaded, block: Block, payload: bytes) -> int:
    status, place = loaded.host.try_reserve(len(payload) + 5 if len(payload) + 5 <= loaded.plugin.max_payload else len(payload))
    if status != OK:
        return status
    c.memmove(place, payload, len(payload))
    return loaded.host.commit(block)


def test_unknown_times_and_heights_are_not_numbers(loaded: Loaded) -> None:
    for height, time in ((0, 0), (HEIGHT_UNKNOWN - 1, TIME_UNKNOWN + 1)):
        assert loaded.host.publish(block_of(height=height, time_=time, final_height=height)) == OK
        [frame] = loaded.frames()
        assert (frame.height, frame.final_height, frame.time) == (height, height, time)


# A ring that its producer broke

PAGE = resource.getpagesize()
HEADER = {
    "total_length": (0, c.c_uint64, [0, 8, 63, 65, 64, 128, 1 << 16, (1 << 16) + 64, 2**64 - 64]),
    "payload_length": (8, c.c_uint64, [128, 1 << 16, 2**63, 2**64 - 1]),
    "kind": (48, c.c_uint16, [0, 5, 65535]),
    "flags": (50, c.c_uint16, [2, 65535]),
    "hash_length": (52, c.c_uint8, [65, 255]),
    "parent_length": (53, c.c_uint8, [65, 255]),
    "weight_length": (54, c.c_uint8, [1, 31, 33]),
    "item_length": (55, c.c_uint8, [1, 255]),
    "position_length": (56, c.c_uint16, [257, 65535]),
}


@pytest.mark.parametrize(
    ("offset", "type_", "lie"),
    [(offset, type_, lie) for offset, type_, lies in HEADER.values() for lie in lies],
    ids=[f"{name}={lie}" for name, (_, _, lies) in HEADER.items() for lie in lies],
)
def test_a_broken_record_is_an_error_and_not_read(loaded: Loaded, offset: int, type_: Any, lie: int) -> None:
    assert loaded.host.publish(block_of(b"good")) == OK
    _, place = loaded.host.reserve(100)
    assert loaded.host.commit(block_of(b"x" * 100, hash_=b"h")) == OK
    type_.from_address(place - 64 + offset).value = lie
    [good] = loaded.plugin.read(10)
    for _ in range(2):
        with pytest.raises(PluginError, match="corrupt ring"):
            loaded.plugin.read(10)
    assert bytes(good) == b"good"


def test_a_ring_is_filled_to_its_last_line_and_no_further(loaded: Loaded) -> None:
    lines = (1 << 16) // 64
    for height in range(lines):
        assert loaded.host.try_publish(block_of(height=height)) == OK
    assert loaded.host.try_publish(block_of(height=lines)) == WOULD_BLOCK
    assert [frame.height for frame in loaded.frames()] == list(range(lines))


def test_a_head_beyond_the_ring_is_not_believed_where_sound_records_lie(loaded: Loaded) -> None:
    _, place = loaded.host.reserve(0)
    assert loaded.host.abandon() == OK
    lines = (1 << 16) // 64
    for height in range(lines):
        assert loaded.host.try_publish(block_of(height=height)) == OK
    assert len(loaded.frames()) == lines
    c.c_uint64.from_address(place - 64 - PAGE).value = 2 * (1 << 16) + 64
    with pytest.raises(PluginError, match="corrupt ring"):
        loaded.plugin.read(2 * lines)
    assert loaded.plugin.statistics().frames == lines


@pytest.mark.parametrize("head", [1, 63, 64 * 3, (1 << 16) + 256, 2**64 - 64, 2**63])
def test_a_broken_head_is_an_error_and_not_believed(loaded: Loaded, head: int) -> None:
    _, place = loaded.host.reserve(4)
    assert loaded.host.commit(block_of(b"1234")) == OK
    assert len(loaded.frames()) == 1
    c.c_uint64.from_address(place - 64 - PAGE).value = head
    if head == 64 * 3:  # Plausible; but no record is there.
        c.memset(place + 64, 0, 64)
    with pytest.raises(PluginError, match="corrupt ring"):
        loaded.plugin.read(10)
    assert loaded.plugin.statistics().frames == 1
    assert not loaded.plugin.prepare_wait()
