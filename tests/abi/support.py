"""Plugins compiled from tests/abi/plugins, and the host's C interface as a plugin sees it, for calls out of Python."""

from __future__ import annotations

import contextlib
import ctypes as c
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervm_rt._abi import Frame, Message, NativePlugin, SealedLibrary

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLUGINS = HERE / "plugins"
CURRENT_HEADERS = ROOT / "include"
RELEASED_HEADERS = HERE / "released" / "v0.1"

FLAGS = ("-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden")
HEIGHT_UNKNOWN = 2**64 - 1
TIME_UNKNOWN = -(2**63)
OK, INVALID_ARGUMENT, NOT_GRANTED, TOO_LARGE, QUEUE_FULL, NO_ROUTE = 0, -1, -2, -3, -4, -5
STOPPING, WOULD_BLOCK, BUSY, NOT_FOUND, WRONG_STATE = -6, -7, -8, -9, -10
ALL = frozenset({"block_stream", "submit_tx"})


class Compiler:
    """Builds shared libraries, each once per session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cache  # noqa: B019 - one compiler lives as long as the session
    def build(self, source: str, *flags: str, headers: Path = CURRENT_HEADERS) -> Path:
        """The path of the library made from one file of tests/abi/plugins."""
        target = self.folder / f"{len(list(self.folder.iterdir()))}-{Path(source).stem}.so"
        compiler = "g++" if source.endswith(".cpp") else "gcc"
        standard = "-std=c++17" if source.endswith(".cpp") else "-std=c11"
        command = [compiler, standard, *FLAGS, f"-I{headers}", str(PLUGINS / source), "-o", str(target), *flags]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            pytest.fail(f"{' '.join(command)}\n{result.stderr}")
        return target

    def code(self, source: str, *flags: str, headers: Path = CURRENT_HEADERS) -> bytes:
        return self.build(source, *flags, headers=headers).read_bytes()


class Block(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("flags", c.c_uint32),
        ("height", c.c_uint64),
        ("final_height", c.c_uint64),
        ("time", c.c_int64),
        ("hash", c.c_char_p),
        ("parent", c.c_char_p),
        ("weight", c.c_char_p),
        ("position", c.c_char_p),
        ("payload", c.c_void_p),
        ("hash_length", c.c_uint32),
        ("parent_length", c.c_uint32),
        ("position_length", c.c_uint32),
        ("reserved", c.c_uint32),
        ("payload_length", c.c_uint64),
    )


class Reorg(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("orphan_length", c.c_uint32),
        ("from_height", c.c_uint64),
        ("to_height", c.c_uint64),
        ("orphans", c.c_char_p),
        ("orphan_count", c.c_uint64),
        ("position", c.c_char_p),
        ("position_length", c.c_uint32),
        ("reserved", c.c_uint32),
    )


PUBLISH = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(Block))
RESERVE = c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_uint64, c.POINTER(c.c_void_p))


class BlockSink(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("reserved", c.c_uint32),
        ("max_payload", c.c_uint64),
        ("host", c.c_void_p),
        ("publish", PUBLISH),
        ("try_publish", PUBLISH),
        ("reserve", RESERVE),
        ("try_reserve", RESERVE),
        ("commit", PUBLISH),
        ("abandon", c.CFUNCTYPE(c.c_int32, c.c_void_p)),
        ("publish_release", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(Block), c.c_void_p, c.c_void_p)),
        ("reorg", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(Reorg))),
        ("finalized", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.c_char_p, c.c_uint32, c.c_uint64)),
        ("end_of_input", c.CFUNCTYPE(c.c_int32, c.c_void_p)),
    )


class Vtable(c.Structure):
    _fields_ = (
        ("host_log", c.CFUNCTYPE(None, c.c_int, c.c_char_p)),
        ("host_submit_tx", c.CFUNCTYPE(c.c_int, c.c_char_p, c.c_char_p, c.c_size_t)),
        ("host_report_metric", c.CFUNCTYPE(c.c_int, c.c_char_p, c.c_double)),
        ("host_request_shutdown", c.CFUNCTYPE(c.c_int, c.c_int)),
        ("abi_major", c.c_uint32),
        ("abi_minor", c.c_uint32),
        ("struct_size", c.c_uint32),
        ("reserved", c.c_uint32),
        ("host_get_extension", c.CFUNCTYPE(c.c_void_p, c.c_char_p)),
    )


class Config(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("reserved", c.c_uint32),
        ("host", c.c_void_p),
        ("get", c.CFUNCTYPE(c.c_int32, c.c_void_p, c.POINTER(c.c_void_p), c.POINTER(c.c_uint64))),
    )


class Heartbeat(c.Structure):
    _fields_ = (
        ("struct_size", c.c_uint32),
        ("interval_ms", c.c_uint32),
        ("host", c.c_void_p),
        ("beat", c.CFUNCTYPE(c.c_int32, c.c_void_p)),
    )


Resume = Config
"""The same shape: a function that gives a pointer and a length."""


def block_of(
    payload: bytes = b"",
    height: int | None = None,
    hash_: bytes = b"",
    parent: bytes = b"",
    position: bytes = b"",
    weight: int | None = None,
    time_: int | None = None,
    final_height: int | None = None,
) -> Block:
    block = Block(
        struct_size=c.sizeof(Block),
        height=HEIGHT_UNKNOWN if height is None else height,
        final_height=HEIGHT_UNKNOWN if final_height is None else final_height,
        time=TIME_UNKNOWN if time_ is None else time_,
        hash=hash_,
        parent=parent,
        weight=None if weight is None else weight.to_bytes(32, "little"),
        position=position,
        payload=c.cast(c.c_char_p(payload), c.c_void_p),
        hash_length=len(hash_),
        parent_length=len(parent),
        position_length=len(position),
        payload_length=len(payload),
    )
    block.keep = payload
    return block


class Host:
    """What a loaded plugin sees: the test calls it in the plugin's stead."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.vtable = Vtable.from_address(address)

    def extension(self, id_: bytes) -> int | None:
        found: int | None = self.vtable.host_get_extension(id_)
        return found

    @functools.cached_property
    def sink(self) -> BlockSink:
        return BlockSink.from_address(self.extension(b"supervm.block_sink/1") or 0)

    @functools.cached_property
    def config(self) -> Config:
        return Config.from_address(self.extension(b"supervm.config/1") or 0)

    @functools.cached_property
    def resume(self) -> Config:
        return Resume.from_address(self.extension(b"supervm.resume/1") or 0)

    @functools.cached_property
    def heartbeat(self) -> Heartbeat:
        return Heartbeat.from_address(self.extension(b"supervm.heartbeat/1") or 0)

    def publish(self, block: Block) -> int:
        return int(self.sink.publish(self.sink.host, c.byref(block)))

    def try_publish(self, block: Block) -> int:
        return int(self.sink.try_publish(self.sink.host, c.byref(block)))

    def commit(self, block: Block) -> int:
        return int(self.sink.commit(self.sink.host, c.byref(block)))

    def abandon(self) -> int:
        return int(self.sink.abandon(self.sink.host))

    def reserve(self, length: int) -> tuple[int, int]:
        place = c.c_void_p()
        status = self.sink.reserve(self.sink.host, length, c.byref(place))
        return int(status), place.value or 0

    def try_reserve(self, length: int) -> tuple[int, int]:
        place = c.c_void_p()
        status = self.sink.try_reserve(self.sink.host, length, c.byref(place))
        return int(status), place.value or 0

    def publish_release(self, block: Block, release: int, argument: int = 0) -> int:
        return int(self.sink.publish_release(self.sink.host, c.byref(block), release, argument))

    def end_of_input(self) -> int:
        return int(self.sink.end_of_input(self.sink.host))


class Driver:
    """tests/abi/plugins/driver.c, loaded beside the plugin."""

    def __init__(self, path: Path) -> None:
        self.library = c.CDLL(str(path))
        self.holding_the_gil = c.PyDLL(str(path))
        self.library.publisher_start.restype = c.c_void_p
        self.library.publisher_start.argtypes = (c.c_void_p, c.c_uint64, c.c_uint64, c.c_uint64, c.c_uint32, c.c_int64)
        self.library.publisher_done.restype = c.c_uint64
        self.library.publisher_done.argtypes = (c.c_void_p,)
        pointers = (c.POINTER(c.c_uint64), c.POINTER(c.c_int64), c.POINTER(c.c_int64))
        self.library.publisher_join.argtypes = (c.c_void_p, *pointers)
        self.library.report_from_threads.restype = c.c_uint64
        self.library.report_from_threads.argtypes = (c.c_void_p, c.c_uint64, c.c_uint64)
        self.library.release_count.restype = c.c_uint64
        for library in (self.library, self.holding_the_gil):
            library.hold.argtypes = (c.c_int64, c.POINTER(c.c_int64), c.POINTER(c.c_int64))

    def address(self, function: str) -> int:
        return c.cast(getattr(self.library, function), c.c_void_p).value or 0

    def released(self) -> int:
        return int(self.library.release_count())


class Publisher:
    """A C thread that publishes."""

    def __init__(
        self, driver: Driver, host: Host, *, count: int, length: int, number: int = 1, retry: bool = False, delay_ns: int = 0
    ) -> None:
        self.driver = driver
        self.pointer = driver.library.publisher_start(c.addressof(host.sink), number, count, length, int(retry), delay_ns)
        assert self.pointer
        self.first_ns = self.last_ns = self.done = 0

    def published(self) -> int:
        return int(self.driver.library.publisher_done(self.pointer))

    def join(self) -> int:
        """The status of the last publish."""
        done, first, last = c.c_uint64(), c.c_int64(), c.c_int64()
        status = int(self.driver.library.publisher_join(self.pointer, c.byref(done), c.byref(first), c.byref(last)))
        self.done, self.first_ns, self.last_ns = done.value, first.value, last.value
        return status


class Loaded:
    """One plugin made from mailbox.c, initialised, and the host as it sees it."""

    def __init__(self, plugin: NativePlugin, host: Host) -> None:
        self.plugin = plugin
        self.host = host

    def frames(self, count: int = 2**31) -> list[Frame]:
        return self.plugin.read(count, 2**62)

    def messages(self) -> list[Message]:
        return self.plugin.read_messages(2**31)


def load(code: bytes, **options: int) -> NativePlugin:
    """One more instance."""
    library = SealedLibrary(code)
    try:
        return NativePlugin(library, **options)
    finally:
        library.close()


def initialise(plugin: NativePlugin, *, capabilities: frozenset[str] = ALL, position: bytes | None = None) -> Host:
    """Grants and initialises a mailbox plugin."""
    mailbox = c.c_uint64()
    plugin.grant(capabilities=capabilities, configuration=str(c.addressof(mailbox)).encode(), position=position)
    assert plugin.init() == 0
    assert not plugin.prepare_wait(), "the end of a call is something to look at, once"
    return Host(mailbox.value)


@contextlib.contextmanager
def running(
    code: bytes, *, capabilities: frozenset[str] = ALL, position: bytes | None = None, **options: int
) -> Iterator[Loaded]:
    """A mailbox plugin, closed at the end."""
    plugin = load(code, **options)
    try:
        yield Loaded(plugin, initialise(plugin, capabilities=capabilities, position=position))
    finally:
        if not plugin.closed:
            plugin.close()


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.001)


def run_python(script: str, *arguments: str) -> str:
    """What the script prints, in a process of its own: for what would leave this one with a slot less."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
