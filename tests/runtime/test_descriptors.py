"""Where this process can open no more descriptors, a plugin fails with an error that says so, and lives again once it can."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartLimits, RestartPolicy, RuntimeConfig
from supervm_rt.errors import HostError
from supervm_rt.transports.native.child.host import machine
from supervm_rt.trust.policy import Placement
from tests.remote.programs import program
from tests.runtime.support import IN_CHILD, MakePlugin, actor

MOST = 60
"""Descriptors that a life needs, by far."""


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def sweep(plugin: PluginConfig, store: Path) -> int:
    """Lives of which each has one descriptor more. Returns how many of them failed."""
    seen: list[HostEvent] = []
    failed = 0
    limits = RestartLimits(first_delay=0.01, longest_delay=0.01, failures=10_000)
    config = RuntimeConfig(store=store, plugins=(), policy=PolicyLevel.DEV, restarts=limits)
    async with supervm_rt.open_runtime(config, receivers=(seen.append,)) as runtime:
        name = await runtime.add(plugin)  # whatever is opened once for all of them
        await until(runtime, name, PluginState.RUNNING)
        await runtime.stop(name)
        opened = descriptors()
        for count in range(MOST):
            assert descriptors() == opened, "none is left open by a life that failed"
            seen.clear()
            with descriptors_left(count):
                try:
                    await runtime.add(plugin)
                except HostError as error:
                    assert "as many files and sockets open as it may" in error.message
                    failed += 1
                    continue
                with trio.fail_after(20):
                    while runtime.plugins[name].state is not PluginState.RUNNING and not of(seen, EventKind.PLUGIN_FAILED):
                        await trio.sleep(0.001)
            await until(runtime, name, PluginState.RUNNING)
            failures = of(seen, EventKind.PLUGIN_FAILED)
            for each in failures:
                assert "as many files and sockets open as it may" in each.message, each.message
                assert each.data["blame"] == "host"
            status = await runtime.stop(name)
            assert status.state is PluginState.UNLOADED
            if not failures:
                return failed
            failed += 1
    raise AssertionError(f"it needs more than {MOST} descriptors")


def of(seen: list[HostEvent], kind: EventKind) -> list[HostEvent]:
    return [event for event in seen if event.kind is kind]


async def until(runtime: supervm_rt.Runtime, plugin: str, state: PluginState) -> None:
    with trio.fail_after(20):
        while runtime.plugins[plugin].state is not state:
            assert not runtime.plugins[plugin].finished, runtime.plugins[plugin].failure
            await trio.sleep(0.001)


@pytest.mark.own_process
@pytest.mark.parametrize("placement", [Placement.IN_PROCESS, IN_CHILD])
def test_a_library(make_plugin: MakePlugin, tmp_path: Path, placement: Placement) -> None:
    machine()
    plugin = replace(actor(make_plugin(), restart=RestartPolicy.ALWAYS), placement=placement)
    assert trio.run(sweep, plugin, tmp_path / "store.db") > 3


@pytest.mark.own_process
@pytest.mark.unsanitized("the program runs confined, where no sanitizer can")
@pytest.mark.parametrize("image", [False, True], ids=["executable", "image"])
def test_a_program(tmp_path: Path, image: bool) -> None:
    plugin = replace(program(tmp_path / "plugin", 0, image=image), restart=RestartPolicy.ALWAYS)
    assert trio.run(sweep, plugin, tmp_path / "store.db") > 3
