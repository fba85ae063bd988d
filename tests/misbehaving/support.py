"""What the tests of misbehaving plugins share: the runtime with a neighbour, and a count of all that could be left."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio

from supervm_rt import Deadlines, PluginConfig, PluginStatus, Runtime
from supervm_rt._abi import slots_in_use
from tests.misbehaving.expectations import Case, Expected
from tests.runtime.support import MakePlugin

PLUGIN = "org.example.misbehaving"
SOURCES = Path(__file__).parent / "plugins"
NEIGHBOUR_BLOCKS = 100
SHORT = Deadlines(load=3, init=1, start=1, stop=1)
_CALLS = {
    "loading": "load",
    "plugin_get_manifest_json": "load",
    "plugin_init": "init",
    "plugin_start": "start",
    "corrupt": "start",  # those that break their ring do it in a start that waits for stop
}


def deadlines(expected: Expected) -> Deadlines:
    """Short for the call that does not return, and for the stop that follows it; a busy machine must not make others late."""
    if not expected.short:
        return Deadlines()
    call = _CALLS.get(expected.failure.split()[0])
    named = Deadlines(stop=SHORT.stop)
    return named if call is None else replace(named, **{call: getattr(SHORT, call)})


MakeMisbehaving = Callable[[Case], Path]


def neighbour(folder: Path, name: str) -> PluginConfig:
    """A plugin that behaves, on a chain of its own."""
    return PluginConfig(path=folder, settings={"act": "publish"}, name=name, chain=name)


async def until(runtime: Runtime, plugin: str, condition: Callable[[PluginStatus], bool], seconds: float = 30) -> None:
    """Waits until the plugin's status is as wanted; fails where it does not become so."""
    with trio.fail_after(seconds):
        while not condition(runtime.plugins[plugin]):
            await trio.sleep(0.005)


async def mirrors_all(runtime: Runtime, name: str) -> None:
    """Waits until the neighbour of this name has said all, and finds each of its blocks."""
    await until(runtime, name, lambda status: status.idle)
    assert runtime.chains[name].blocks == NEIGHBOUR_BLOCKS
    assert runtime.chains[name].rejections == 0


async def add_neighbour(runtime: Runtime, make_plugin: MakePlugin, name: str) -> None:
    """Shows that the host still loads, runs and mirrors."""
    await runtime.add(neighbour(make_plugin(), name))
    await mirrors_all(runtime, name)


def leftovers(temporary: Path) -> Counter[str]:
    """What a plugin could leave behind, counted by kind. The difference between two of these is what was left."""
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found["descriptors"] += link.readlink() != Path(f"/proc/{os.getpid()}/fd")
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            found["threads"] += (task / "comm").read_text().startswith("svm-")
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # a process that ended meanwhile
            found["children"] += f"\nPPid:\t{os.getpid()}\n" in status.read_text()
    found["mappings"] = Path("/proc/self/maps").read_text().count("memfd")
    found["slots"] = slots_in_use()
    found["files"] = len(list(temporary.iterdir()))
    return found


def peak_kibibytes() -> int:
    """The most memory that this process held since it was executed (ru_maxrss would count what its maker held before)."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


def process_state() -> dict[str, object]:
    """What belongs to the whole process and a plugin can change."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    libc.setlocale.restype = ctypes.c_char_p
    umask = os.umask(0)
    os.umask(umask)
    ignored = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigIgn"))
    # 32 and 33 are the C library's own, which it takes when it needs them, whatever this process inherited.
    signals = int(ignored.split()[1], 16) & ~(1 << 31 | 1 << 32)
    return {
        "directory": str(Path.cwd()),
        "umask": umask,
        "environment": libc.getenv(b"MISBEHAVING"),
        "locale": libc.setlocale(6, None),  # LC_ALL
        "signals": signals,
    }
