"""What is verified is what is loaded: sealed bytes, new mappings, slots, and what a library must not be (clauses A1, A10, T1)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervm_rt._abi import MESSAGE_LOG, MESSAGE_METRIC, SLOT_COUNT, NativePlugin, SealedLibrary, slots_in_use
from supervm_rt.errors import LifecycleError, LoadError, SlotsExhausted
from supervm_rt.transports.native.library import inspect_library
from tests.abi.support import RELEASED_HEADERS, Compiler, initialise, load, run_python, running


def mapped(path_part: str = "supervm-plugin") -> int:
    return sum(path_part in line for line in Path("/proc/self/maps").read_text().splitlines())


# Sealed libraries


def test_a_sealed_library_holds_and_hashes_exactly_the_bytes() -> None:
    data = random.Random(1).randbytes(3_000_000)
    with SealedLibrary(data) as library:
        assert library.size == len(data)
        assert library.sha256 == hashlib.sha256(data).digest()
        assert os.pread(library.fd, len(data), 0) == data


def test_a_sealed_library_cannot_be_changed() -> None:
    with SealedLibrary(b"bytes") as library:
        for attempt in (
            lambda: os.pwrite(library.fd, b"x", 0),
            lambda: os.ftruncate(library.fd, 0),
            lambda: os.ftruncate(library.fd, 9),
        ):
            with pytest.raises(PermissionError):
                attempt()
        with pytest.raises(PermissionError):
            fcntl.fcntl(library.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_an_empty_library_can_be_sealed_but_not_loaded() -> None:
    with SealedLibrary(b"") as library:
        assert library.sha256 == hashlib.sha256(b"").digest()
        with pytest.raises(LoadError):
            NativePlugin(library)


def test_closing_a_sealed_library_closes_its_fd_once(mailbox: bytes) -> None:
    library = SealedLibrary(mailbox)
    fd = library.fd
    library.close()
    library.close()
    assert library.fd == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(ValueError, match="closed"):
        NativePlugin(library)


# Loading


def test_a_plugin_that_knows_only_the_specification_works(compiler: Compiler) -> None:
    plugin = load(compiler.code("v0_literal.c"))
    try:
        assert b"org.example.v0" in plugin.manifest_json()
        plugin.grant(capabilities=frozenset(), configuration=b"{}", position=None)
        assert plugin.init() == 0
        assert plugin.shutdown_request is None
        assert plugin.start() == 0
        assert plugin.shutdown_request == 42
        assert not plugin.heartbeat_asked
        assert plugin.stop() == 0
        said = [(message.kind, message.level, message.text, message.value) for message in plugin.read_messages(10)]
        assert said == [
            (MESSAGE_LOG, 2, "v0 init", 0.0),
            (MESSAGE_METRIC, 0, "blocks", 7.5),
            (MESSAGE_LOG, 3, "submit_tx answered -2", 0.0),
            (MESSAGE_LOG, 2, "v0 stop", 0.0),
        ]
    finally:
        plugin.close()


def test_a_plugin_built_against_the_first_released_headers_works(compiler: Compiler) -> None:
    with running(compiler.code("mailbox.c", headers=RELEASED_HEADERS)) as loaded:
        assert loaded.host.end_of_input() == 0
        assert len(loaded.frames()) == 1


def test_a_missing_export_is_named(compiler: Compiler) -> None:
    before = slots_in_use()
    with pytest.raises(LoadError, match="plugin_stop"):
        load(compiler.code("incomplete.c"))
    assert slots_in_use() == before
    assert mapped() == 0


def test_what_the_dynamic_linker_says_is_told(compiler: Compiler) -> None:
    with pytest.raises(LoadError, match="no_such_function_anywhere"):
        load(compiler.code("unresolved.c"))
    with pytest.raises(LoadError, match="dynamic linker"):
        load(b"not a library")
    assert slots_in_use() == 0


def test_one_sealed_library_is_loaded_once_at_a_time(mailbox: bytes) -> None:
    with SealedLibrary(mailbox) as library:
        first = NativePlugin(library)
        with pytest.raises(LoadError, match="loaded before"):
            NativePlugin(library)
        first.close()
        NativePlugin(library).close()
    assert slots_in_use() == 0


def test_two_instances_have_globals_of_their_own_and_are_not_mistaken(mailbox: bytes, compiler: Compiler) -> None:
    other = compiler.code("lifecycle.c")
    with running(mailbox) as one, running(mailbox) as two:
        third = load(other)
        try:
            assert [one.plugin.start(), two.plugin.start()] == [1, 1]
            assert len({one.plugin.slot, two.plugin.slot, third.slot}) == 3
            one.host.vtable.host_log(2, b"one")
            two.host.vtable.host_log(2, b"two")
            two.host.vtable.host_request_shutdown(2)
            one.host.end_of_input()
            assert [message.text for message in one.messages()] == ["one"]
            assert [message.text for message in two.messages()] == ["two"]
            assert (one.plugin.shutdown_request, two.plugin.shutdown_request) == (None, 2)
            assert (len(one.frames()), len(two.frames())) == (1, 0)
            assert third.manifest_json() == b"{}"
        finally:
            third.close()


def test_a_library_loaded_after_another_was_closed_is_never_the_other_one(mailbox: bytes, compiler: Compiler) -> None:
    other = compiler.code("v0_literal.c")
    numbers = set()
    for _ in range(20):
        for code, expected in ((mailbox, b"test.mailbox"), (other, b"org.example.v0")):
            library = SealedLibrary(code)
            numbers.add(library.fd)
            plugin = NativePlugin(library)
            library.close()
            assert expected in plugin.manifest_json()
            plugin.close()
    assert len(numbers) == 1, "the numbers of the fds were meant to be used again"


def test_two_living_libraries_from_the_same_fd_number_stay_apart(mailbox: bytes, compiler: Compiler) -> None:
    library = SealedLibrary(mailbox)
    number = library.fd
    first = NativePlugin(library)
    library.close()
    library = SealedLibrary(compiler.code("v0_literal.c"))
    moved = os.dup(library.fd) if library.fd != number else -1
    second = NativePlugin(library)
    if moved >= 0:
        os.close(moved)
    library.close()
    assert b"test.mailbox" in first.manifest_json()
    assert b"org.example.v0" in second.manifest_json()
    first.close()
    second.close()


def test_all_slots_can_be_taken_and_come_free_again(mailbox: bytes) -> None:
    plugins = [load(mailbox, ring_bytes=1 << 16, side_ring_bytes=1 << 16) for _ in range(SLOT_COUNT)]
    assert slots_in_use() == SLOT_COUNT
    assert {plugin.slot for plugin in plugins} == set(range(SLOT_COUNT))
    hosts = [initialise(plugin) for plugin in plugins]
    for number, host in enumerate(hosts):
        host.vtable.host_report_metric(b"number", float(number))
    assert [plugin.read_messages(9)[0].value for plugin in plugins] == [float(number) for number in range(SLOT_COUNT)]
    with pytest.raises(SlotsExhausted):
        load(mailbox)
    plugins.pop(7).close()
    again = load(mailbox)
    assert again.slot == 7
    for plugin in [*plugins, again]:
        plugin.close()
    assert slots_in_use() == 0


@pytest.mark.parametrize("size", [0, 4096, 65535, 65537, 3 << 20, 1 << 40])
def test_a_ring_has_a_sensible_size(mailbox: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        load(mailbox, ring_bytes=size)
    assert slots_in_use() == 0


# The manifest


def test_the_manifest_string_goes_back_exactly_once(compiler: Compiler) -> None:
    plugin = load(compiler.code("lifecycle.c", "-DFREES=1"))
    assert plugin.manifest_json() == b"{}"
    plugin.grant(capabilities=frozenset(), configuration=b"{}", position=None)
    assert plugin.init() == 0, "plugin_free_string aborts on a wrong pointer, and init fails unless it was called once"
    plugin.close()


@pytest.mark.parametrize(("flag", "message"), [("-DMANIFEST_NULL", "NULL"), ("-DMANIFEST_HUGE", "more than 1 MiB")])
def test_a_manifest_that_cannot_be_is_refused(compiler: Compiler, flag: str, message: str) -> None:
    plugin = load(compiler.code("lifecycle.c", flag))
    with pytest.raises(LoadError, match=message):
        plugin.manifest_json()
    plugin.close()


# The order of calls


def test_calls_out_of_order_are_refused(mailbox: bytes) -> None:
    plugin = load(mailbox)
    for call in (plugin.init, plugin.start, plugin.stop):
        with pytest.raises(LifecycleError):
            call()
    initialise(plugin)
    with pytest.raises(LifecycleError):
        plugin.grant(capabilities=frozenset(), configuration=b"{}", position=None)
    with pytest.raises(LifecycleError):
        plugin.init()
    assert plugin.start() == 1
    assert plugin.stop() == 1
    with pytest.raises(LifecycleError):
        plugin.stop()
    assert not plugin.closed
    plugin.close()
    plugin.close()
    assert plugin.closed
    assert plugin.statistics().capacity == 16 << 20
    for after in (plugin.begin_stop, plugin.prepare_wait, plugin.threads, lambda: plugin.read(1)):
        with pytest.raises(LifecycleError, match="closed"):
            after()


def test_a_plugin_that_nobody_closed_is_reported_and_abandoned(compiler: Compiler) -> None:
    script = (
        "import pathlib, sys, warnings\n"
        "from supervm_rt._abi import NativePlugin, SealedLibrary, slots_in_use\n"
        "plugin = NativePlugin(SealedLibrary(pathlib.Path(sys.argv[1]).read_bytes()))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    del plugin\n"
        "print([str(each.message) for each in caught if each.category is ResourceWarning], slots_in_use())\n"
    )
    said = run_python(script, str(compiler.build("mailbox.c")))
    assert "'the plugin in slot 0 was neither closed nor abandoned'" in said
    assert said.endswith(" 1\n")


# Inspection


@pytest.mark.unsanitized(reason="a sanitizer's libraries are among those that the plugin needs")
def test_inspection_says_what_a_library_exports_needs_and_asks_for(mailbox: bytes, compiler: Compiler) -> None:
    facts = inspect_library(mailbox)
    assert facts.exports == {
        "plugin_get_manifest_json",
        "plugin_init",
        "plugin_start",
        "plugin_stop",
        "plugin_free_string",
    }
    assert facts.missing_exports == ()
    assert facts.needed == ("libc.so.6",)
    assert facts.extensions == ("supervm.config/1",)
    assert facts.size == len(mailbox)
    assert inspect_library(compiler.code("incomplete.c")).missing_exports == ("plugin_stop",)


def test_extension_ids_are_found_wherever_they_lie(mailbox: bytes) -> None:
    """They are looked for in pieces, whose ends lie at this distance."""
    distance = 256 << 10
    longest = b"com." + b".".join([b"a" * 64] * 8) + b"/123456789"
    room = distance - len(mailbox) - len(longest) - 10
    for beyond in (*range(0, len(longest) + 20, 7), len(longest)):
        data = mailbox + bytes(room + beyond) + longest + b"\0xsupervm.none/1\0"
        assert set(inspect_library(data).extensions) == {"supervm.config/1", longest.decode()}, beyond


@pytest.mark.parametrize(
    "name",
    [b"com.a" + b".a" * 8 + b"/1", b"com." + b"a" * 65 + b".a/1", b"supervm." + b"a" * 65 + b"/1", b"com.a/1", b"supervm.a/"],
)
def test_what_is_no_extension_id_is_none(mailbox: bytes, name: bytes) -> None:
    """Also longer ones than anybody would write: to look for those can take any time and memory."""
    assert inspect_library(mailbox + b"\0" + name + b"\0").extensions == ("supervm.config/1",)


def test_more_extension_ids_than_there_can_be_are_refused(mailbox: bytes) -> None:
    with pytest.raises(LoadError, match="more than 1000 extension ids"):
        inspect_library(mailbox + b"".join(b"\0supervm.x/%d\0" % number for number in range(2_000)))


def test_inspection_refuses_what_cannot_be_unloaded_or_kept_apart(compiler: Compiler) -> None:
    with pytest.raises(LoadError, match="GNU_UNIQUE") as refusal:
        inspect_library(compiler.code("unique.cpp"))
    assert "child process" in refusal.value.remedy
    with pytest.raises(LoadError, match="NODELETE"):
        inspect_library(compiler.code("mailbox.c", "-Wl,-z,nodelete"))
    with pytest.raises(LoadError, match="TEXTREL"):
        inspect_library(compiler.code("textrel.c", "-Wl,-z,notext"))


def test_inspection_refuses_programs_and_other_machines(compiler: Compiler, mailbox: bytes) -> None:
    with pytest.raises(LoadError, match="not an ELF"):
        inspect_library(b"#!/bin/sh\n")
    with pytest.raises(LoadError, match="another machine"):
        inspect_library(mailbox[:18] + b"\xf3\x00" + mailbox[20:])
    with pytest.raises(LoadError, match="another machine"):
        inspect_library(mailbox[:4] + b"\x01" + mailbox[5:])
    with pytest.raises(LoadError, match="program|no shared library"):
        inspect_library(Path(sys.executable).read_bytes())


def test_a_library_that_refuses_to_leave_is_abandoned_by_name(compiler: Compiler) -> None:
    """In a process of its own: the slot does not come back."""
    script = (
        "import pathlib, sys\n"
        "from supervm_rt._abi import NativePlugin, SealedLibrary, slots_in_use\n"
        "from supervm_rt.errors import LifecycleError\n"
        "plugin = NativePlugin(SealedLibrary(pathlib.Path(sys.argv[1]).read_bytes()))\n"
        "try:\n"
        "    plugin.close()\n"
        "except LifecycleError as error:\n"
        "    print(error, slots_in_use())\n"
    )
    path = compiler.build("mailbox.c", "-Wl,-z,nodelete")
    assert "did not leave the process" in run_python(script, str(path))


@settings(max_examples=300)
@given(st.data())
def test_inspection_of_damaged_libraries_ends_in_facts_or_a_load_error(mailbox: bytes, data: st.DataObject) -> None:
    broken = bytearray(mailbox)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(broken) - 1) | st.integers(0, 1024))
        broken[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del broken[data.draw(st.integers(0, len(broken))) :]
    try:
        inspect_library(bytes(broken))
    except LoadError as error:
        assert error.remedy


@pytest.mark.parametrize("method", ["close", "abandon"])
def test_a_plugin_that_was_never_made_has_nothing_to_close(method: str) -> None:
    getattr(NativePlugin.__new__(NativePlugin), method)()
