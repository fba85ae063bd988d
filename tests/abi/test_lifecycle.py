"""init, start, stop and close, and everything that a plugin may leave behind (clauses A2 to A4, L5)."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from supervm_rt._abi import NativePlugin, slots_in_use
from supervm_rt.errors import LifecycleError
from tests.abi.support import Compiler, Driver, Publisher, eventually, load, run_python, running

GRANTED = frozenset({"block_stream"})


def granted(code: bytes, **options: int) -> NativePlugin:
    plugin = load(code, **options)
    plugin.grant(capabilities=GRANTED, configuration=b"{}", position=None)
    return plugin


def test_what_a_call_answers_is_handed_on(compiler: Compiler) -> None:
    plugin = granted(compiler.code("lifecycle.c", "-DINIT_ANSWER=-17"))
    assert plugin.init() == -17
    with pytest.raises(LifecycleError, match="wrong state"):
        plugin.start()
    with pytest.raises(LifecycleError, match="wrong state"):
        plugin.stop()
    plugin.close()

    plugin = granted(compiler.code("lifecycle.c", "-DSTART_ANSWER=5", "-DTHREADS=0"))
    assert plugin.init() == 0
    assert plugin.start() == 5
    assert plugin.stop() == 0
    plugin.close()


def test_stop_ends_threads_that_are_blocked_in_publish(compiler: Compiler) -> None:
    plugin = granted(compiler.code("lifecycle.c"), ring_bytes=1 << 16)
    assert plugin.init() == 0
    assert plugin.start() == 0
    eventually(lambda: plugin.statistics().waits > 0)
    assert len(plugin.threads()) == 2
    assert plugin.stop() == 0
    eventually(lambda: plugin.threads() == [])
    plugin.close()


def test_stop_may_be_called_while_start_runs(compiler: Compiler) -> None:
    plugin = granted(compiler.code("lifecycle.c", "-DWORKS_IN_START"), ring_bytes=1 << 16)
    assert plugin.init() == 0
    answers: list[int] = []
    starting = threading.Thread(target=lambda: answers.append(plugin.start()))
    starting.start()
    eventually(lambda: plugin.statistics().waits > 0)
    assert plugin.stop() == 0
    starting.join()
    assert answers == [0]
    plugin.close()


def test_a_thread_keeps_its_own_name_around_calls(mailbox: bytes) -> None:
    name = Path("/proc/thread-self/comm")
    before = name.read_text()
    with running(mailbox) as loaded:
        assert name.read_text() == before
        loaded.plugin.start()
        loaded.plugin.stop()
    assert name.read_text() == before


def test_threads_of_the_host_and_of_other_plugins_are_not_the_plugins(compiler: Compiler, mailbox: bytes, driver: Driver) -> None:
    code = compiler.code("lifecycle.c")
    with running(mailbox) as quiet:
        busy = granted(code, ring_bytes=1 << 16)
        renamed = granted(compiler.code("lifecycle.c", "-DRENAMED"), ring_bytes=1 << 16)
        done = threading.Event()
        python_thread = threading.Thread(target=done.wait)
        python_thread.start()
        foreign = Publisher(driver, quiet.host, count=0, length=0, delay_ns=300_000_000)
        for plugin in (busy, renamed):
            assert plugin.init() == 0
            assert plugin.start() == 0
        for plugin in (busy, renamed):
            eventually(lambda plugin=plugin: plugin.last_sign_of_life < plugin.last_sign_of_life)  # type: ignore[misc]
        # A thread whose stack cannot be read counts: one that is about to sleep, or to end, does so for a moment.
        eventually(lambda: quiet.plugin.threads() == [])
        assert len(busy.threads()) == len(renamed.threads()) == 2
        assert not set(busy.threads()) & set(renamed.threads())
        for plugin in (busy, renamed):
            plugin.stop()
            plugin.close()
        done.set()
        python_thread.join()
        foreign.join()


LEFTOVER = """
import pathlib, sys, time
from supervm_rt._abi import NativePlugin, SealedLibrary, slots_in_use
from supervm_rt.errors import LifecycleError
def load(path):
    plugin = NativePlugin(SealedLibrary(pathlib.Path(path).read_bytes()), ring_bytes=1 << 16)
    plugin.grant(capabilities=frozenset({"block_stream"}), configuration=b"{}", position=None)
    assert plugin.init() == 0
    return plugin
plugin = load(sys.argv[1])
others = [load(path) for path in sys.argv[2:]]
assert plugin.start() == 0
while len(plugin.read(1)) == 0:
    pass
assert plugin.stop() == 0
for other in others:
    other.close()
try:
    plugin.close()
except LifecycleError as error:
    print(error)
print(slots_in_use(), plugin.closed, len(plugin.threads()))
again = load(sys.argv[1])
print(again.slot)
again.close()
"""


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("accompanied", [False, True])
def test_a_thread_that_is_left_makes_the_plugin_abandoned(compiler: Compiler, renamed: bool, accompanied: bool) -> None:
    flags = ["-DLEAVES_THREAD"] + ["-DRENAMED"] * renamed
    others = [str(compiler.build("lifecycle.c", "-DTHREADS=0"))] * accompanied
    said = run_python(LEFTOVER, str(compiler.build("lifecycle.c", *flags)), *others).splitlines()
    assert "it left threads behind" in said[0]
    assert said[1:] == ["1 False 2", "1"]


def test_the_same_with_another_plugin_still_loaded(compiler: Compiler) -> None:
    """A thread with a name of its own, which only its stack gives away."""
    script = LEFTOVER.replace("for other in others:\n    other.close()\n", "") + "for other in others:\n    other.close()\n"
    paths = [compiler.build("lifecycle.c", "-DLEAVES_THREAD", "-DRENAMED"), compiler.build("lifecycle.c", "-DTHREADS=0")]
    said = run_python(script, *map(str, paths)).splitlines()
    assert "it left threads behind" in said[0]
    assert said[1:] == ["2 False 2", "2"]


def test_close_during_a_call_abandons(compiler: Compiler) -> None:
    script = (
        "import pathlib, sys, threading\n"
        "from tests.abi.support import load\n"
        "from supervm_rt.errors import LifecycleError\n"
        "plugin = load(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "plugin.grant(capabilities=frozenset({'block_stream'}), configuration=b'{}', position=None)\n"
        "plugin.init()\n"
        "thread = threading.Thread(target=plugin.start)\n"
        "thread.start()\n"
        "while plugin.statistics().waits == 0:\n"
        "    pass\n"
        "try:\n"
        "    plugin.close()\n"
        "except LifecycleError as error:\n"
        "    print(error)\n"
        "thread.join()\n"
        "print(plugin.closed, len(plugin.read(5)))\n"
    )
    said = run_python(script, str(compiler.build("lifecycle.c", "-DWORKS_IN_START"))).splitlines()
    assert "a call of it has not returned" in said[0]
    assert said[1] == "False 5"


def test_two_threads_may_close_and_one_does(compiler: Compiler) -> None:
    plugin = granted(compiler.code("lifecycle.c"), ring_bytes=1 << 16)
    plugin.init()
    errors: list[LifecycleError] = []
    barrier = threading.Barrier(8)

    def close() -> None:
        barrier.wait()
        try:
            plugin.close()
        except LifecycleError as error:
            errors.append(error)

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plugin.closed
    assert all("is being closed" in str(error) for error in errors)


def inventory() -> tuple[int, int, Counter[str]]:
    """Threads, open files, and mappings by what they map."""
    maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    names = Counter(fields[5] if len(fields) > 5 else "" for fields in maps)
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), names  # noqa: PTH208


@pytest.mark.own_process
def test_a_thousand_rounds_leave_nothing(compiler: Compiler) -> None:
    code = compiler.code("lifecycle.c")
    after_ten: tuple[int, int, Counter[str]] | None = None
    for number in range(1000):
        plugin = granted(code, ring_bytes=1 << 16, side_ring_bytes=1 << 16)
        assert plugin.manifest_json() == b"{}"
        assert plugin.init() == 0
        assert plugin.start() == 0
        frames = plugin.read(50)
        assert plugin.stop() == 0
        assert [message.text for message in plugin.read_messages(5)] == ["stopping"]
        plugin.close()
        del frames
        if number == 9:
            after_ten = inventory()
    threads, files, names = inventory()
    assert after_ten is not None
    assert (threads, files) == after_ten[:2]
    if any("libasan" in name for name in names):  # Its own memory comes and goes.
        names.pop("", None)
        after_ten[2].pop("", None)
    assert names == after_ten[2]
    assert not [name for name in names if "memfd" in name]
    assert slots_in_use() == 0


def test_a_frame_knows_its_generation(compiler: Compiler) -> None:
    plugin = granted(compiler.code("lifecycle.c"), generation=2**40)
    plugin.init()
    plugin.start()
    while not (frames := plugin.read(1)):
        pass
    plugin.stop()
    plugin.close()
    assert frames[0].generation == plugin.generation == 2**40
