"""The block sink between threads: reserve and commit, stop, the wake-up, and the GIL that it never takes (clauses D1, L5)."""

from __future__ import annotations

import ctypes as c
import select

import pytest

from supervm_rt._abi import KIND_END_OF_INPUT
from tests.abi.support import (
    BUSY,
    INVALID_ARGUMENT,
    OK,
    STOPPING,
    WOULD_BLOCK,
    WRONG_STATE,
    Driver,
    Loaded,
    Publisher,
    block_of,
    eventually,
    running,
)


def readable(loaded: Loaded, seconds: float = 0) -> bool:
    return bool(select.select([loaded.plugin.event_fd], [], [], seconds)[0])


def drain(loaded: Loaded, count: int) -> list[int | None]:
    """Reads so many frames as a host would: it sleeps on the eventfd. Their heights."""
    heights: list[int | None] = []
    while len(heights) < count:
        frames = loaded.plugin.read(1000)
        heights += [frame.height for frame in frames]
        if not frames and loaded.plugin.prepare_wait():
            assert readable(loaded, 20), "nobody woke the host"
            loaded.plugin.finish_wait()
    return heights


# Reserve, commit, abandon


def test_what_was_written_into_a_reservation_is_published(loaded: Loaded) -> None:
    status, place = loaded.host.reserve(1000)
    assert status == OK
    assert loaded.frames() == []
    c.memmove(place, b"written in place", 16)
    block = block_of(b"x" * 16, height=3, hash_=b"h" * 32)
    block.payload = None
    assert loaded.host.commit(block) == OK
    [frame] = loaded.frames()
    assert (bytes(frame), frame.height, frame.hash) == (b"written in place", 3, b"h" * 32)


def test_an_abandoned_reservation_leaves_nothing(loaded: Loaded) -> None:
    for _ in range(500):
        assert loaded.host.reserve(2000)[0] == OK
        assert loaded.host.abandon() == OK
    assert loaded.frames() == []
    assert loaded.plugin.statistics().used == 0


def test_commit_and_abandon_need_a_reservation(loaded: Loaded) -> None:
    assert loaded.host.commit(block_of()) == WRONG_STATE
    assert loaded.host.abandon() == WRONG_STATE


def test_the_same_thread_is_told_busy_until_it_commits(loaded: Loaded) -> None:
    assert loaded.host.reserve(8)[0] == OK
    assert loaded.host.publish(block_of()) == BUSY
    assert loaded.host.reserve(8)[0] == BUSY
    assert loaded.host.end_of_input() == BUSY
    assert loaded.host.commit(block_of(b"12345678")) == OK
    assert loaded.host.publish(block_of()) == OK
    assert len(loaded.frames()) == 2


@pytest.mark.parametrize("field", ["struct_size", "flags", "payload_length"])
def test_a_refused_commit_ends_the_reservation(loaded: Loaded, field: str) -> None:
    assert loaded.host.reserve(8)[0] == OK
    block = block_of(b"12345678")
    setattr(block, field, 9)
    assert loaded.host.commit(block) == INVALID_ARGUMENT
    assert loaded.host.abandon() == WRONG_STATE
    assert loaded.host.publish(block_of()) == OK
    assert len(loaded.frames()) == 1


def test_a_reservation_belongs_to_its_thread(loaded: Loaded, driver: Driver) -> None:
    answers = (c.c_int32 * 3)()
    assert driver.library.steal_reservation(c.byref(loaded.host.sink), answers) == OK
    assert list(answers) == [WRONG_STATE, WRONG_STATE, WOULD_BLOCK]
    assert loaded.frames() == []


def test_a_signal_handler_inside_a_reservation_is_told_busy(loaded: Loaded, driver: Driver) -> None:
    metric, commit = c.c_int32(), c.c_int32()
    host = loaded.host
    assert driver.library.publish_in_handler(c.byref(host.vtable), c.byref(host.sink), c.byref(metric), c.byref(commit)) == BUSY
    assert (metric.value, commit.value) == (OK, OK)
    assert [bytes(frame) for frame in loaded.frames()] == [b"xxxxxxxx"]
    assert [message.text for message in loaded.messages()] == ["signal", "from a signal handler"]


# Waiting and waking


def test_try_publish_never_waits(loaded: Loaded) -> None:
    published = 0
    while (status := loaded.host.try_publish(block_of(b"x" * 5000))) == OK:
        published += 1
    assert status == WOULD_BLOCK
    assert loaded.host.try_reserve(5000)[0] == WOULD_BLOCK
    assert loaded.plugin.statistics().waits == 0
    assert len(loaded.frames()) == published


def test_frames_messages_and_requests_each_wake_a_sleeping_host_once(loaded: Loaded) -> None:
    def publish() -> None:
        assert loaded.host.publish(block_of()) == OK

    def log() -> None:
        loaded.host.vtable.host_log(2, b"line")

    def shut_down() -> None:
        assert loaded.host.vtable.host_request_shutdown(1) == OK

    def start() -> None:
        loaded.plugin.start()

    for index, say in enumerate((publish, log, shut_down, start)):
        assert loaded.plugin.prepare_wait()
        assert not readable(loaded)
        say()
        assert readable(loaded)
        if say is not start:
            say()
        loaded.plugin.finish_wait()
        assert not readable(loaded)
        loaded.frames()
        loaded.messages()
        if loaded.plugin.prepare_wait():
            loaded.plugin.finish_wait()
        assert loaded.plugin.statistics().wakeups == index + 1


def test_nothing_is_written_while_the_host_is_awake(loaded: Loaded) -> None:
    assert loaded.host.publish(block_of()) == OK
    loaded.host.vtable.host_log(2, b"line")
    assert not readable(loaded)
    assert loaded.plugin.statistics().wakeups == 0


def test_a_host_with_something_to_read_is_kept_from_sleeping(loaded: Loaded) -> None:
    assert loaded.host.publish(block_of()) == OK
    assert not loaded.plugin.prepare_wait()
    loaded.frames()
    loaded.host.vtable.host_log(2, b"line")
    assert not loaded.plugin.prepare_wait()
    loaded.messages()
    loaded.host.vtable.host_request_shutdown(5)
    assert not loaded.plugin.prepare_wait()
    assert loaded.plugin.shutdown_request == 5
    assert loaded.plugin.prepare_wait()
    loaded.plugin.finish_wait()


@pytest.mark.parametrize("length", [0, 300, 20_000])
def test_no_wake_up_is_lost(mailbox: bytes, driver: Driver, length: int) -> None:
    count = 30_000 if length < 1000 else 3_000
    with running(mailbox, ring_bytes=1 << 16) as loaded:
        publisher = Publisher(driver, loaded.host, count=count, length=length)
        heights = drain(loaded, count)
        assert publisher.join() == OK
        assert heights == list(range(count))
        assert loaded.plugin.prepare_wait()
        loaded.plugin.finish_wait()


@pytest.mark.parametrize("retry", [False, True])
def test_publishers_on_many_threads_are_serialised(loaded: Loaded, driver: Driver, retry: bool) -> None:
    publishers = [
        Publisher(driver, loaded.host, count=3_000, length=100 * number, number=number, retry=retry) for number in range(4)
    ]
    seen: dict[int, list[int]] = {number: [] for number in range(4)}
    total = 0
    while total < 12_000:
        for frame in loaded.plugin.read(500):
            number = int.from_bytes(frame.hash[:8], "little")
            assert bytes(frame) == bytes([number]) * (100 * number)
            assert frame.height == int.from_bytes(frame.hash[8:16], "little")
            seen[number].append(frame.height)
            total += 1
    assert [publisher.join() for publisher in publishers] == [OK] * 4
    assert all(heights == list(range(3_000)) for heights in seen.values())


# Stop


def test_a_stop_ends_the_wait_of_every_publisher(loaded: Loaded, driver: Driver) -> None:
    publishers = [Publisher(driver, loaded.host, count=10_000, length=5_000, number=number) for number in range(3)]
    eventually(lambda: loaded.plugin.statistics().waits > 0)
    loaded.plugin.begin_stop()
    assert [publisher.join() for publisher in publishers] == [STOPPING] * 3
    assert len(loaded.frames()) == sum(publisher.done for publisher in publishers)


def test_after_begin_stop_the_sink_answers_stopping_and_logs_still_pass(loaded: Loaded) -> None:
    host = loaded.host
    loaded.plugin.begin_stop()
    loaded.plugin.begin_stop()
    assert host.publish(block_of()) == STOPPING
    assert host.try_publish(block_of()) == STOPPING
    assert host.reserve(1)[0] == STOPPING
    assert host.end_of_input() == STOPPING
    assert host.heartbeat.beat(host.heartbeat.host) == STOPPING
    assert host.vtable.host_submit_tx(b"bitcoin", b"tx", 2) == STOPPING
    assert host.vtable.host_request_shutdown(1) == STOPPING
    host.vtable.host_log(2, b"last words")
    assert host.vtable.host_report_metric(b"last", 1.0) == OK
    assert [message.text for message in loaded.messages()] == ["last words", "last"]


def test_after_stop_nothing_is_answered(loaded: Loaded) -> None:
    host = loaded.host
    sink, config, heartbeat, resume = host.sink, host.config, host.heartbeat, host.resume
    loaded.plugin.start()
    loaded.plugin.stop()
    host.vtable.host_log(2, b"too late")
    assert host.vtable.host_report_metric(b"late", 1.0) == STOPPING
    assert host.vtable.host_request_shutdown(1) == STOPPING
    assert host.extension(b"supervm.block_sink/1") is None
    assert sink.publish(sink.host, block_of()) == STOPPING
    assert heartbeat.beat(heartbeat.host) == STOPPING
    assert config.get(config.host, c.c_void_p(), c.c_uint64()) == STOPPING
    assert resume.get(resume.host, c.c_void_p(), c.c_uint64()) == STOPPING
    assert loaded.messages() == []


def test_a_commit_after_begin_stop_is_refused_and_lets_go(loaded: Loaded) -> None:
    assert loaded.host.reserve(4)[0] == OK
    loaded.plugin.begin_stop()
    assert loaded.host.commit(block_of(b"1234")) == STOPPING
    assert loaded.host.commit(block_of(b"1234")) == WRONG_STATE
    assert loaded.frames() == []


def test_frames_published_before_a_stop_can_still_be_read(loaded: Loaded) -> None:
    loaded.host.publish(block_of(b"kept"))
    loaded.host.end_of_input()
    loaded.plugin.start()
    loaded.plugin.stop()
    assert [frame.kind for frame in loaded.frames()][-1] == KIND_END_OF_INPUT


# Signs of life


def test_a_beat_and_a_publish_are_signs_of_life(loaded: Loaded, driver: Driver) -> None:
    host = loaded.host
    assert not loaded.plugin.heartbeat_asked
    assert host.heartbeat.interval_ms == 10_000
    assert loaded.plugin.heartbeat_asked
    for say in (lambda: host.heartbeat.beat(host.heartbeat.host), lambda: host.publish(block_of())):
        before = loaded.plugin.last_sign_of_life

        def lived(before: int = before, say: object = say) -> bool:
            assert callable(say)
            assert say() == OK
            loaded.frames()
            return loaded.plugin.last_sign_of_life > before

        eventually(lived)
    quiet = loaded.plugin.last_sign_of_life
    assert loaded.plugin.last_sign_of_life == quiet


def test_waiting_in_the_sink_counts_as_alive(loaded: Loaded, driver: Driver) -> None:
    publisher = Publisher(driver, loaded.host, count=1_000, length=5_000)
    eventually(lambda: loaded.plugin.statistics().waits > 0)
    eventually(lambda: loaded.plugin.last_sign_of_life < loaded.plugin.last_sign_of_life)
    loaded.plugin.begin_stop()
    assert publisher.join() == STOPPING


# The GIL


def test_a_plugin_publishes_while_another_thread_holds_the_gil(mailbox: bytes, driver: Driver) -> None:
    """A C function holds the GIL for a second; 10,000 frames are published within that second, by the clocks of the C side."""
    with running(mailbox) as loaded:
        begun, ended = c.c_int64(), c.c_int64()
        publisher = Publisher(driver, loaded.host, count=10_000, length=300, delay_ns=200_000_000)
        driver.holding_the_gil.hold(1_000_000_000, c.byref(begun), c.byref(ended))
        assert publisher.join() == OK
        assert publisher.done == 10_000
        assert begun.value < publisher.first_ns < publisher.last_ns < ended.value
        assert [frame.height for frame in loaded.frames()] == list(range(10_000))
