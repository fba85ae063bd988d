"""Calls of a child's transport out of their order are refused, and spoil nothing; nothing of a child is left (clauses L1, L5)."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from supervm_rt import Deadlines
from supervm_rt._abi import MESSAGE_LOG, MESSAGE_METRIC, MESSAGE_TRANSACTION, Frame, Message, SealedLibrary
from supervm_rt.errors import ChildEnded, ConfigurationError, LifecycleError, PolicyRefused
from supervm_rt.model.manifest import Capability, Resources, Security
from supervm_rt.transports.interface import CallOverdue
from supervm_rt.transports.native.child import transport as child_transport
from supervm_rt.transports.native.child.host import Machine, machine, program
from supervm_rt.transports.native.child.launcher import MOST_READ_PATHS
from supervm_rt.transports.native.child.storage import Storage, Way
from supervm_rt.transports.native.child.transport import ChildTransport
from tests.abi.support import NO_ROUTE, QUEUE_FULL
from tests.sandbox.support import make_attacker, observe


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is found out and kept once for the process."""
    machine()
    program("supervm-runner")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (make_attacker(tmp_path_factory.mktemp("attacker") / "plugin") / "plugin.so").read_bytes()


def transport(
    library: bytes,
    *,
    complete: bool = False,
    resources: Resources | None = None,
    storage: Path | None = None,
    ring_bytes: int = 1 << 16,
    deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
    heartbeat: float | None = None,
    read_paths: dict[str, Path] | None = None,
    security: Security = Security(),  # noqa: B008 - frozen
) -> ChildTransport:
    return ChildTransport(
        SealedLibrary(library),
        name="it",
        generation=1,
        ring_bytes=ring_bytes,
        heartbeat=heartbeat,
        deadlines=deadlines,
        security=security,
        folder=Path("/nowhere"),
        read_paths=read_paths or {},
        resources=resources or Resources(),
        complete=complete,
        storage=storage,
    )


def call(it: ChildTransport, name: str, act: str = "nothing") -> Callable[[], Awaitable[object]]:
    async def grant() -> None:
        configuration = json.dumps({"act": act}).encode()
        it.grant(capabilities=frozenset({Capability.BLOCK_STREAM}), configuration=configuration, position=None)

    async def abandon() -> None:
        it.abandon()

    others: dict[str, Callable[[], Awaitable[object]]] = {"grant": grant, "abandon": abandon}
    return others[name] if name in others else getattr(it, name)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        ("load load grant init start stop", [1]),
        ("load grant init init start stop", [3]),
        ("load grant init start start stop", [4]),
        ("load grant start init start stop", [2]),
        ("load init grant init start stop", [1]),
        ("load grant init start stop stop", [5]),
        ("load grant stop init", [3]),
        ("load grant init stop start", [4]),
        ("unload load", [1]),
        ("load unload load", [2]),
        ("abandon load", [1]),
        ("load grant init start", []),
        ("load", []),
    ],
)
def test_a_call_out_of_order_is_refused_and_spoils_nothing(library: bytes, calls: str, refused: list[int]) -> None:
    async def main() -> None:
        before = descriptors()
        it = transport(library)
        for index, name in enumerate(calls.split()):
            if index in refused:
                with pytest.raises(LifecycleError, match="it: "):
                    await call(it, name)()
            else:
                await call(it, name)()
        await it.unload()
        assert descriptors() == before

    trio.run(main)


def test_one_that_ends_before_it_is_looked_at_is_to_blame_itself(library: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel shows it no more, and bubblewrap has not told yet how it ended."""

    def look(process: int, **_: Any) -> str:
        os.kill(process, signal.SIGKILL)
        return "/proc does not show it"

    monkeypatch.setattr(child_transport, "what_is_missing", look)

    async def main() -> None:
        it = transport(library)
        await it.load()
        await call(it, "grant")()
        with pytest.raises(ChildEnded, match="SIGKILL"):
            await it.init()
        await it.unload()

    trio.run(main)


def test_one_that_does_not_take_its_configuration_is_overdue(library: bytes) -> None:
    """It is larger than what waits in the channel."""

    async def main() -> None:
        it = transport(library, deadlines=Deadlines(init=0.3))
        await it.load()
        it.grant(capabilities=frozenset(), configuration=b" " * (2 << 20), position=None)
        os.kill(it._runner, signal.SIGSTOP)
        with trio.fail_after(20), pytest.raises(CallOverdue, match=r"plugin_init did not return within 0.3 s"):
            await it.init()
        await it.unload()

    trio.run(main)


def test_a_pause_is_no_silence_once_it_is_over(library: bytes) -> None:
    """Who was stopped for want of processor time could give no sign of life meanwhile."""

    async def main() -> None:
        it = transport(library, resources=Resources(cpu=0.5), heartbeat=30.0)
        for name in ("load", "grant", "init", "start"):
            await call(it, name)()
        assert it._watch is not None
        it._watch._pause(stop=True)
        await trio.sleep(0.1)  # long beside the time until it is asked
        assert it.silence() is None
        paused = time.monotonic()
        it._watch._pause(stop=False)
        silence = it.silence()
        assert silence is not None
        assert silence <= time.monotonic() - paused
        await it.stop()
        await it.unload()

    trio.run(main)


@pytest.mark.parametrize("cancelled", ["load", "init", "start"])
def test_a_call_that_is_cancelled_leaves_nothing(library: bytes, cancelled: str) -> None:
    async def main() -> None:
        before = descriptors()
        it = transport(library)
        for name in ("load", "grant", "init", "start"):
            if name == cancelled:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call(it, name)()
                break
            await call(it, name)()
        await it.unload()
        assert descriptors() == before

    trio.run(main)


def test_one_that_is_given_up_is_reaped_some_day(library: bytes) -> None:
    """It may still run for a moment, and nobody warns of it."""

    async def main() -> None:
        before = descriptors()
        for _ in range(3):
            it = transport(library)
            for name in ("load", "grant", "init", "start"):
                await call(it, name)()
            it.abandon()
            del it
            gc.collect()
        again = transport(library)
        await again.load()
        await again.unload()
        assert descriptors() == before

    trio.run(main)


def test_stop_waits_for_a_start_that_is_within_its_deadline(library: bytes) -> None:
    """plugin_stop comes after plugin_start, also where whoever waited for start was cancelled."""

    async def main() -> None:
        it = transport(library)
        for name in ("load", "grant", "init"):
            await call(it, name, "slow_start")()
        with trio.CancelScope() as scope:
            scope.cancel()
            await it.start()
        await it.stop()
        said = [message.text for message in it.receive_rest().messages if message.kind == MESSAGE_LOG]
        assert said == ["slow_start answered 0", "slow_stop answered 0"]
        await it.unload()

    trio.run(main)


def test_what_goes_on_to_write_to_its_ring_after_stop_comes_to_an_end(library: bytes) -> None:
    """Taking what is left would never be done otherwise, and the node would not end."""

    async def main() -> None:
        it = transport(library, ring_bytes=1 << 20)
        for name in ("load", "grant", "init", "start"):
            await call(it, name, "flood_ring")()
        with trio.fail_after(20):
            while not (await it.receive()).frames:
                pass
        await it.stop()

        async def take_rest() -> None:
            while True:
                await it.receive()

        with trio.fail_after(20), pytest.raises(ChildEnded):
            await take_rest()
        await it.unload()

    trio.run(main)


def test_frames_keep_what_their_plugin_overwrites(library: bytes) -> None:
    """Kept, exported or neither, in any number, and also once their plugin has gone."""

    async def main() -> None:
        it = transport(library)
        for name in ("load", "grant", "init", "start"):
            await call(it, name, "flood_and_spoil")()
        frames: list[Frame] = []
        views: list[memoryview] = []
        spoilt = False
        with trio.fail_after(20):
            while not spoilt:
                received = await it.receive()
                frames += received.frames
                views += [memoryview(frame) for frame in received.frames if (frame.height or 0) % 10 == 0]
                spoilt = any(message.text == "spoil answered 0" for message in received.messages)
        statistics = it.statistics()
        assert statistics is not None
        assert (statistics.frames, statistics.used) == (300, 0)
        assert statistics.copied_out > 200, "the host's own memory holds 64 KiB of the three million"
        for gone in (False, True):
            for number, frame in enumerate(frames):
                assert bytes(frame) == bytes([number % 256]) * (1 + number * 7919 % 20_000)
                assert frame.hash == (number + 1).to_bytes(8, "little")
            assert all(set(view) == {10 * number % 256} for number, view in enumerate(views))
            if not gone:
                await it.stop()
                await it.unload()
        assert len(views) == 30

    trio.run(main)


@pytest.mark.parametrize("routed", [True, False])
def test_transactions_cross_the_boundary_whole_and_in_order(library: bytes, routed: bool) -> None:
    """Where the host has a way for them; else they are refused inside, and nothing is queued."""

    async def main() -> None:
        it = transport(library)
        await call(it, "load")()
        it._ends.set_route(routed)
        configuration = json.dumps({"act": "submit"}).encode()
        granted = frozenset({Capability.BLOCK_STREAM, Capability.SUBMIT_TX})
        it.grant(capabilities=granted, configuration=configuration, position=None)
        for name in ("init", "start"):
            await call(it, name)()
        said: list[Message] = []
        with trio.fail_after(20):
            while not any(message.text.startswith("refused") for message in said):
                said += (await it.receive()).messages
        transactions = [message for message in said if message.kind == MESSAGE_TRANSACTION]
        answers = [int(message.value) for message in said if message.kind == MESSAGE_METRIC]
        assert len(answers) == 100
        taken = [number for number, answer in enumerate(answers) if answer == 0]
        assert [message.text for message in transactions] == ["bitcoin"] * len(taken)
        assert [message.data for message in transactions] == [bytes([number]) * (100_000 - number) for number in taken]
        if routed:
            assert set(answers) == {0, QUEUE_FULL}, "the queue has an end"
            assert taken[:30] == list(range(30)), "and room before it"
        else:
            assert set(answers) == {NO_ROUTE}
        logged = [message.text for message in said if message.kind == MESSAGE_LOG]
        assert logged == [f"taken answered {len(taken)}", f"refused answered {answers.count(QUEUE_FULL)}"]
        await it.stop()
        await it.unload()

    trio.run(main)


@pytest.mark.parametrize(
    "path",
    ["/", "relative", "/proc", "/proc/self", "/dev/shm", "/sys/kernel", "/usr", "/usr/lib"],
)
def test_a_path_that_cannot_be_shown_is_refused(library: bytes, path: str) -> None:
    """All of the file system, what is the kernel's, and what stands inside already."""

    async def main() -> None:
        it = transport(library, read_paths={"blocks_dir": Path(path)})
        with pytest.raises(ConfigurationError, match=f"it: blocks_dir is '{path}', which cannot be shown") as refused:
            await it.load()
        assert "name the folder itself" in refused.value.remedy
        await it.unload()

    trio.run(main)


@pytest.mark.parametrize("count", [MOST_READ_PATHS, MOST_READ_PATHS + 1])
def test_more_paths_than_are_shown_are_refused(library: bytes, tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / str(number)).mkdir()

    async def main() -> None:
        it = transport(library, read_paths={f"key{number}": tmp_path / str(number) for number in range(count)})
        if count <= MOST_READ_PATHS:
            await it.load()
        else:
            with pytest.raises(ConfigurationError, match="it: more than 16 paths are to be read"):
                await it.load()
        await it.unload()

    trio.run(main)


def test_a_path_that_the_node_may_not_read_is_named(work: Path, user: int, tmp_path: Path) -> None:
    """What root runs reads all."""
    folder = make_attacker(tmp_path / "plugin")
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700 if os.geteuid() == 0 else 0)
    seen = observe(folder, work, ["read_secret"], {"granted": str(closed)}, user=user)["acts"]["read_secret"]
    if user == 0:
        assert seen["failures"] == []
        return
    (failure,) = seen["failures"]
    assert f"{closed} (granted) cannot be read by the user that runs this node" in failure
    assert "run the node as the folder's owner or as root" in failure
    assert seen["log"] == []


def test_what_was_said_before_it_ended_is_taken_first(library: bytes) -> None:
    async def main() -> None:
        it = transport(library)
        for name in ("load", "grant", "init"):
            await call(it, name, "says_and_exits")()
        with pytest.raises(ChildEnded) as start:
            await it.start()
        assert start.value.cause == "exit"
        received = await it.receive()
        assert [message.text for message in received.messages] == ["says_and_exits answered 0"]
        with pytest.raises(ChildEnded, match="ended by itself with status 3"):
            await it.receive()
        await it.unload()

    trio.run(main)


def test_storage_that_is_only_looked_at_will_not_do_either(
    library: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(child_transport, "prepare", lambda *_: Storage(Way.FOLDER, tmp_path))

    async def main() -> None:
        it = transport(library, complete=True, resources=Resources(storage=1 << 20), storage=tmp_path)
        with pytest.raises(PolicyRefused, match="cannot enforce the quota of storage") as refused:
            await it.load()
        assert "run the node as root" in refused.value.remedy
        await it.unload()

    trio.run(main)


@pytest.mark.parametrize("rule", ["", "mmap a3 & MAP_TYPE == MAP_SHARED", "memfd_create", "fork", "mremap"])
def test_memory_that_no_limit_counts_is_only_looked_at(
    library: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: str
) -> None:
    """Where an operator's profile allows it and there is no group: strict does not take that."""
    real = machine()
    without = Machine(real.bubblewrap, real.why_degraded, real.disables_namespaces, real.landlock, None)
    monkeypatch.setattr(child_transport, "machine", lambda: without)
    profile = tmp_path / "own.profile"
    profile.write_text(f"include baseline\n[running]\n{rule}\n")

    async def main() -> None:
        granted = Resources(memory=64 << 20)
        it = transport(library, resources=granted, security=Security(seccomp_profile=str(profile)))
        await it.load()
        assert it.confinement is not None
        assert it.confinement.quotas == {"memory": "polling" if rule else "rlimit"}
        await it.unload()
        strict = transport(library, complete=True, resources=granted, security=Security(seccomp_profile=str(profile)))
        if rule:
            with pytest.raises(PolicyRefused, match="cannot enforce the quota of memory"):
                await strict.load()
        else:
            await strict.load()
        await strict.unload()

    trio.run(main)


@pytest.mark.parametrize(
    ("lacks", "says"),
    [("namespaces", r"cannot enforce namespaces \(forbidden\)"), ("groups", "cannot enforce the quota of cpu")],
)
def test_where_all_is_asked_for_less_is_refused(library: bytes, monkeypatch: pytest.MonkeyPatch, lacks: str, says: str) -> None:
    real = machine()
    bubblewrap, why = (None, "forbidden") if lacks == "namespaces" else (real.bubblewrap, "")
    less = Machine(
        bubblewrap, why, real.disables_namespaces, max(real.landlock, 1), real.bases if lacks == "namespaces" else None
    )
    monkeypatch.setattr(child_transport, "machine", lambda: less)

    async def main() -> None:
        it = transport(library, complete=True, resources=Resources(cpu=None if lacks == "namespaces" else 1.0))
        with pytest.raises(PolicyRefused, match=says):
            await it.load()
        await it.unload()

    trio.run(main)
