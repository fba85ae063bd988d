"""Logs, metrics, transactions and what is granted (clauses A6 to A9, G1)."""

from __future__ import annotations

import ctypes as c
import math

import pytest

from supervm_rt._abi import MESSAGE_LOG, MESSAGE_METRIC, MESSAGE_TRANSACTION
from tests.abi.support import (
    ALL,
    INVALID_ARGUMENT,
    NO_ROUTE,
    NOT_FOUND,
    NOT_GRANTED,
    OK,
    QUEUE_FULL,
    TOO_LARGE,
    Config,
    Driver,
    Host,
    Loaded,
    running,
)

EXTENSIONS = (b"supervm.block_sink/1", b"supervm.resume/1", b"supervm.config/1", b"supervm.heartbeat/1")


def got(extension: Config) -> tuple[int, bytes]:
    pointer, length = c.c_void_p(), c.c_uint64()
    status = extension.get(extension.host, c.byref(pointer), c.byref(length))
    return status, c.string_at(pointer.value, length.value) if pointer.value else b""


def log(loaded: Loaded, text: bytes, level: int = 2) -> str:
    loaded.host.vtable.host_log(level, text)
    [message] = loaded.messages()
    assert (message.kind, message.data) == (MESSAGE_LOG, b"")
    return message.text


# Logs and metrics


def test_log_text_can_go_to_a_terminal_as_it_is(loaded: Loaded) -> None:
    assert log(loaded, b"") == ""
    assert log(loaded, "Blöcke: ✓".encode()) == "Blöcke: ✓"
    assert log(loaded, b"two\nlines\t\x1b[31mred\x00never seen") == "two\\nlines\\t\\x1b[31mred"
    assert log(loaded, b"\xff\xfe broken \xe2\x82") == "\ufffd\ufffd broken \ufffd"
    assert log(loaded, "left\u202eright".encode()) == "left\\u202eright"


def test_a_long_log_line_is_cut_between_characters(loaded: Loaded) -> None:
    assert log(loaded, b"x" * 4096) == "x" * 4096
    assert log(loaded, b"x" * 4097) == "x" * 4096
    assert log(loaded, b"x" * 5_000_000) == "x" * 4096
    assert log(loaded, b"x" + "€".encode() * 2000) == "x" + "€" * 1365
    assert log(loaded, b"\x80" * 5000) == "\ufffd" * 4093


@pytest.mark.parametrize(("level", "kept"), [(-5, 0), (0, 0), (4, 4), (5, 4), (2**31 - 1, 4)])
def test_a_level_is_taken_as_the_nearest(loaded: Loaded, level: int, kept: int) -> None:
    loaded.host.vtable.host_log(level, b"text")
    assert [message.level for message in loaded.messages()] == [kept]


def test_a_null_text_is_ignored_and_a_null_name_refused(loaded: Loaded) -> None:
    loaded.host.vtable.host_log(2, None)
    assert loaded.host.vtable.host_report_metric(None, 1.0) == INVALID_ARGUMENT
    assert loaded.host.vtable.host_report_metric(b"", 1.0) == INVALID_ARGUMENT
    assert loaded.messages() == []


def test_metrics_keep_name_and_value(loaded: Loaded) -> None:
    values = [0.1, -0.0, math.inf, 1e308]
    for value in values:
        assert loaded.host.vtable.host_report_metric(b"n" * 300, value) == OK
    assert [(message.kind, message.text, message.value) for message in loaded.messages()] == [
        (MESSAGE_METRIC, "n" * 256, value) for value in values
    ]
    assert loaded.host.vtable.host_report_metric(b"nan", math.nan) == OK
    assert math.isnan(loaded.messages()[0].value)


def test_what_does_not_fit_is_dropped_and_counted(loaded: Loaded) -> None:
    taken = 0
    while loaded.host.vtable.host_report_metric(b"name", 1.0) == OK:
        taken += 1
    assert loaded.host.vtable.host_report_metric(b"name", 1.0) == QUEUE_FULL
    loaded.host.vtable.host_log(2, b"dropped too")
    statistics = loaded.plugin.statistics()
    assert statistics.dropped_messages == 3
    assert len(loaded.plugin.read_messages(10)) == 10
    assert len(loaded.messages()) == taken - 10
    loaded.host.vtable.host_log(2, b"there is room again")
    assert [message.text for message in loaded.messages()] == ["there is room again"]
    assert loaded.plugin.statistics().messages == taken + 1


def test_samples_of_many_threads_all_arrive_or_are_counted(mailbox: bytes, driver: Driver) -> None:
    with running(mailbox) as loaded:
        refused = driver.library.report_from_threads(c.addressof(loaded.host.vtable), 8, 5_000)
        arrived = loaded.messages()
        assert len(arrived) + refused == 40_000
        assert loaded.plugin.statistics().dropped_messages == refused
        assert {message.text for message in arrived} == {"busy"}


# Transactions


def test_a_transaction_is_queued_with_its_chain(loaded: Loaded) -> None:
    loaded.plugin.set_route(True)
    assert loaded.host.vtable.host_submit_tx(b"bitcoin", b"\x00tx\xff", 4) == OK
    [message] = loaded.messages()
    assert (message.kind, message.text, message.data) == (MESSAGE_TRANSACTION, "bitcoin", b"\x00tx\xff")


def test_a_transaction_is_refused_by_name(mailbox: bytes) -> None:
    with running(mailbox, side_ring_bytes=1 << 22) as loaded:
        submit = loaded.host.vtable.host_submit_tx
        assert submit(b"bitcoin", b"tx", 2) == NO_ROUTE
        loaded.plugin.set_route(True)
        assert submit(None, b"tx", 2) == INVALID_ARGUMENT
        assert submit(b"", b"tx", 2) == INVALID_ARGUMENT
        assert submit(b"c" * 129, b"tx", 2) == INVALID_ARGUMENT
        assert submit(b"bitcoin", None, 2) == INVALID_ARGUMENT
        assert submit(b"bitcoin", b"tx", 0) == INVALID_ARGUMENT
        large = bytes(1 << 20)
        assert submit(b"bitcoin", large + b"x", len(large) + 1) == TOO_LARGE
        statuses = [submit(b"bitcoin", large, len(large)) for _ in range(5)]
        assert statuses == [OK, OK, OK, QUEUE_FULL, QUEUE_FULL]
        assert [len(message.data) for message in loaded.messages()] == [len(large)] * 3
        loaded.plugin.set_route(False)
        assert submit(b"bitcoin", b"tx", 2) == NO_ROUTE
        assert loaded.plugin.statistics().dropped_messages == 0


def test_a_transaction_that_the_side_ring_can_never_hold_is_too_large(loaded: Loaded) -> None:
    loaded.plugin.set_route(True)
    assert loaded.host.vtable.host_submit_tx(b"bitcoin", bytes(40_000), 40_000) == TOO_LARGE


# Grants, configuration, position, shutdown


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (frozenset(), {b"supervm.config/1", b"supervm.heartbeat/1"}),
        (frozenset({"submit_tx", "rpc_proxy", "archive_indexer"}), {b"supervm.config/1", b"supervm.heartbeat/1"}),
        (frozenset({"block_stream"}), set(EXTENSIONS)),
    ],
)
def test_what_was_not_granted_is_null(mailbox: bytes, capabilities: frozenset[str], expected: set[bytes]) -> None:
    with running(mailbox, capabilities=capabilities) as loaded:
        assert {id_ for id_ in EXTENSIONS if loaded.host.extension(id_)} == expected
        assert loaded.host.extension(b"supervm.block_sink/2") is None
        assert loaded.host.extension(b"supervm.block_sink/1 ") is None
        loaded.plugin.set_route(True)
        granted = "submit_tx" in capabilities
        assert loaded.host.vtable.host_submit_tx(b"bitcoin", b"tx", 2) == (OK if granted else NOT_GRANTED)


def test_an_extension_says_its_size_and_stays_where_it_is(loaded: Loaded) -> None:
    assert [loaded.host.extension(id_) for id_ in EXTENSIONS] == [loaded.host.extension(id_) for id_ in EXTENSIONS]
    sizes = [
        loaded.host.sink.struct_size,
        loaded.host.resume.struct_size,
        loaded.host.config.struct_size,
        loaded.host.heartbeat.struct_size,
    ]
    assert sizes == [104, 24, 24, 24]
    vtable = loaded.host.vtable
    assert (vtable.abi_major, vtable.abi_minor, vtable.struct_size, vtable.reserved) == (0, 1, 56, 0)


def test_the_configuration_is_what_was_granted(loaded: Loaded) -> None:
    status, text = got(loaded.host.config)
    assert status == OK
    assert text.isdigit()


@pytest.mark.parametrize("position", [b"\x00\x01", b"p" * 256])
def test_the_position_is_what_was_granted(mailbox: bytes, position: bytes) -> None:
    with running(mailbox, position=position) as loaded:
        assert got(loaded.host.resume) == (OK, position)


@pytest.mark.parametrize("position", [None, b""])
def test_without_a_position_there_is_none(mailbox: bytes, position: bytes | None) -> None:
    with running(mailbox, position=position) as loaded:
        assert got(loaded.host.resume) == (NOT_FOUND, b"")


@pytest.mark.parametrize("reason", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_a_shutdown_request_keeps_its_first_reason(loaded: Loaded, reason: int) -> None:
    assert loaded.plugin.shutdown_request is None
    assert loaded.host.vtable.host_request_shutdown(reason) == OK
    assert loaded.host.vtable.host_request_shutdown(77) == OK
    assert loaded.plugin.shutdown_request == reason


def test_a_plugin_that_keeps_the_vtable_of_an_earlier_life_is_answered(mailbox: bytes) -> None:
    with running(mailbox, capabilities=ALL) as loaded:
        address = loaded.host.address
    assert Host(address).vtable.host_report_metric(b"late", 1.0) == -6
    assert Host(address).extension(b"supervm.config/1") is None
    Host(address).vtable.host_log(2, b"late")
