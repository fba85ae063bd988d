"""publish_release: the plugin's own memory, given back exactly once, never under the GIL and never on the host's thread."""

from __future__ import annotations

import ctypes as c
import threading

import pytest

from tests.abi.support import (
    INVALID_ARGUMENT,
    OK,
    STOPPING,
    Compiler,
    Driver,
    Loaded,
    block_of,
    eventually,
    run_python,
    running,
)

EVERY: list[Lent] = []
"""A release may run when the test that lent the memory is over."""


class Lent:
    """One payload that is lent to the host, and how often it came back."""

    def __init__(self, driver: Driver, payload: bytes) -> None:
        self.memory = c.create_string_buffer(payload, len(payload))
        self.count = c.c_uint64()
        self.release = driver.address("release")
        self.payload = payload
        EVERY.append(self)

    def publish(self, loaded: Loaded, *, struct_size: int | None = None) -> int:
        block = block_of(b"", height=5, hash_=b"h" * 32, position=b"pos")
        block.payload = c.addressof(self.memory)
        block.payload_length = len(self.payload)
        if struct_size is not None:
            block.struct_size = struct_size
        return loaded.host.publish_release(block, self.release, c.addressof(self.count))

    @property
    def returned(self) -> int:
        return self.count.value


def lend(loaded: Loaded, driver: Driver, payload: bytes = b"lent") -> Lent:
    lent = Lent(driver, payload)
    assert lent.publish(loaded) == OK
    return lent


def test_the_frame_shows_the_plugins_own_memory(loaded: Loaded, driver: Driver) -> None:
    lent = lend(loaded, driver, b"much longer than the ring" * 10_000)
    [frame] = loaded.frames()
    assert (bytes(frame), frame.hash, frame.position, frame.height) == (lent.payload, b"h" * 32, b"pos", 5)
    view = memoryview(frame)
    c.memset(lent.memory, ord("y"), 4)
    assert bytes(view[:5]) == b"yyyy" + lent.payload[4:5]
    assert lent.returned == 0


def test_it_comes_back_once_when_the_last_use_is_over(loaded: Loaded, driver: Driver) -> None:
    lent = lend(loaded, driver)
    [frame] = loaded.frames()
    view = memoryview(frame)
    del frame
    assert lent.returned == 0
    view.release()
    eventually(lambda: lent.returned == 1)
    loaded.plugin.close()
    assert lent.returned == 1


def test_it_comes_back_on_a_thread_of_its_own(loaded: Loaded, driver: Driver) -> None:
    lent = lend(loaded, driver)
    loaded.frames()
    eventually(lambda: lent.returned == 1)
    assert driver.library.release_thread() not in {thread.native_id for thread in threading.enumerate()}


@pytest.mark.parametrize("why", ["argument", "stopping", "not reserved"])
def test_a_refused_frame_comes_back_before_the_call_returns_on_the_same_thread(loaded: Loaded, driver: Driver, why: str) -> None:
    lent = Lent(driver, b"refused")
    match why:
        case "argument":
            assert lent.publish(loaded, struct_size=0) == INVALID_ARGUMENT
        case "stopping":
            loaded.plugin.begin_stop()
            assert lent.publish(loaded) == STOPPING
        case _:
            assert loaded.host.reserve(4)[0] == OK
            assert lent.publish(loaded) == -8
            assert loaded.host.abandon() == OK
    assert lent.returned == 1
    assert driver.library.release_thread() == driver.library.this_thread()


def test_what_was_never_read_comes_back_at_close(loaded: Loaded, driver: Driver) -> None:
    lent = [lend(loaded, driver) for _ in range(50)]
    assert [each.returned for each in lent] == [0] * 50
    loaded.plugin.close()
    assert [each.returned for each in lent] == [1] * 50


def test_a_frame_that_is_kept_survives_close_as_a_copy(loaded: Loaded, driver: Driver) -> None:
    lent = lend(loaded, driver, b"kept" * 1000)
    [frame] = loaded.frames()
    loaded.plugin.close()
    assert lent.returned == 1
    c.memset(lent.memory, 0, 4000)
    assert (bytes(frame), frame.hash, frame.position) == (b"kept" * 1000, b"h" * 32, b"pos")
    assert bytes(memoryview(frame)) == b"kept" * 1000


def test_a_kept_frame_leaves_the_ring_but_not_the_plugins_memory(loaded: Loaded, driver: Driver) -> None:
    lent = [lend(loaded, driver)]
    kept = loaded.frames()
    view = memoryview(kept[0])
    for _ in range(3000):
        lent.append(lend(loaded, driver))
        kept += loaded.frames()
    assert loaded.plugin.statistics().copied_out > 2000
    assert sum(each.returned for each in lent) == 0
    assert bytes(view) == b"lent"
    assert {(bytes(frame), frame.hash, frame.position) for frame in kept} == {(b"lent", b"h" * 32, b"pos")}
    del view
    kept.clear()
    eventually(lambda: sum(each.returned for each in lent) == 3001)
    assert {each.returned for each in lent} == {1}


def test_many_go_back_once_each(mailbox: bytes, driver: Driver) -> None:
    before = driver.released()
    with running(mailbox, ring_bytes=1 << 20) as loaded:
        lent = []
        for number in range(2000):
            lent.append(lend(loaded, driver))
            if number % 3 == 0:
                loaded.plugin.read(2)
    assert {each.returned for each in lent} == {1}
    assert driver.released() - before == 2000


SCRIPT = """
import ctypes as c, pathlib, sys
from tests.abi.support import Driver, Host, block_of, initialise, load
from supervm_rt._abi import slots_in_use
from supervm_rt.errors import LifecycleError
driver = Driver(pathlib.Path(sys.argv[1]))
plugin = load(pathlib.Path(sys.argv[2]).read_bytes())
host = initialise(plugin)
assert host.publish_release(block_of(b"lent"), driver.address(sys.argv[3])) == 0
frames = plugin.read(1)
view = memoryview(frames[0]) if sys.argv[3] == "release" else None
del frames
try:
    plugin.close()
except LifecycleError as error:
    print(error, slots_in_use(), driver.released(), view and bytes(view))
try:
    plugin.close()
except LifecycleError as error:
    print(error)
plugin.abandon()
print(plugin.closed)
"""


@pytest.mark.parametrize(
    ("release", "why", "rest"),
    [
        ("release", "1 buffers in its memory are still in use", "1 0 b'lent'"),
        ("release_never", "a release callback has not returned", "1 0 None"),
    ],
)
def test_what_cannot_go_back_makes_the_plugin_abandoned(compiler: Compiler, release: str, why: str, rest: str) -> None:
    said = run_python(SCRIPT, str(compiler.build("driver.c")), str(compiler.build("mailbox.c")), release).splitlines()
    assert why in said[0]
    assert said[0].endswith(rest)
    assert "was abandoned" in said[1]
    assert said[2] == "False"


def test_an_exported_ring_buffer_outlives_the_plugin(loaded: Loaded) -> None:
    """Not the plugin's memory: the ring stays mapped for it, and the plugin goes."""
    assert loaded.host.publish(block_of(b"ring" * 100, hash_=b"h")) == OK
    assert loaded.host.publish(block_of(b"kept", hash_=b"k")) == OK
    first, second = loaded.frames()
    view = memoryview(first)
    loaded.plugin.close()
    assert loaded.plugin.closed
    assert bytes(view) == b"ring" * 100
    del first
    view.release()
    assert (bytes(second), second.hash) == (b"kept", b"k")


def test_close_is_refused_where_a_reservation_was_left(compiler: Compiler) -> None:
    script = (
        "import pathlib, sys\n"
        "from tests.abi.support import initialise, load\n"
        "from supervm_rt.errors import LifecycleError\n"
        "plugin = load(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "assert initialise(plugin).reserve(5)[0] == 0\n"
        "try:\n"
        "    plugin.close()\n"
        "except LifecycleError as error:\n"
        "    print(error)\n"
    )
    assert "never committed" in run_python(script, str(compiler.build("mailbox.c")))
