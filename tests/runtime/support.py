"""What tests of plugins' lives share: a runtime whose events are kept, and the plugin that behaves as told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import (
    Deadlines,
    EventKind,
    HostEvent,
    PluginConfig,
    PluginState,
    PolicyLevel,
    RestartLimits,
    RestartPolicy,
    Runtime,
    RuntimeConfig,
)
from supervm_rt.trust.policy import Placement

MakePlugin = Callable[..., Path]


ACTOR = "org.example.actor"


SHORT = Deadlines(load=10, init=0.5, start=0.5, stop=0.5)


QUICK = RestartLimits(first_delay=0.01, longest_delay=0.02, failures=3, window=60)


IN_CHILD = pytest.param(Placement.CHILD, marks=pytest.mark.unsanitized)  # a sanitizer cannot run confined
BOTH = pytest.mark.parametrize("node", [Placement.IN_PROCESS, IN_CHILD], indirect=True, ids=str)
"""The same plugin behaves alike in the host's process and in a sandbox."""


class Node:
    """A runtime over a store of its own, whose events are kept. ``placement``: where the code of all plugins runs."""

    def __init__(self, store: Path, placement: Placement = Placement.IN_PROCESS) -> None:
        self.store = store
        self.placement = placement
        self.events: list[HostEvent] = []

    def open(
        self,
        *plugins: PluginConfig,
        policy: PolicyLevel = PolicyLevel.DEV,
        deadlines: Deadlines | None = None,
        rejection_limit: int = 10_000,
        ring_bytes: int = 1 << 20,
        restarts: RestartLimits | None = None,
    ) -> AbstractAsyncContextManager[Runtime]:
        config = RuntimeConfig(
            store=self.store,
            plugins=tuple(replace(plugin, placement=plugin.placement or self.placement) for plugin in plugins),
            policy=policy,
            deadlines=deadlines or Deadlines(),
            restarts=restarts or QUICK,
            rejection_limit=rejection_limit,
            ring_bytes=ring_bytes,
        )
        return supervm_rt.open_runtime(config, receivers=(self.events.append,))

    def of(self, kind: EventKind) -> list[HostEvent]:
        return [event for event in self.events if event.kind is kind]

    def states(self, plugin: str = ACTOR) -> list[str]:
        return [str(event.data["to"]) for event in self.of(EventKind.PLUGIN_STATE) if event.plugin == plugin]


def actor(folder: Path, act: str = "", restart: RestartPolicy | None = None, name: str | None = None) -> PluginConfig:
    return PluginConfig(path=folder, settings={"act": act}, restart=restart, name=name)


def failure(runtime: Runtime, plugin: str = ACTOR) -> str:
    return str(runtime.plugins[plugin].failure)


GOOD_LIFE = ["loading", "loaded", "initialising", "initialised", "starting", "running", "stopping", "stopped", "unloaded"]


async def running(runtime: Runtime) -> bool:
    with trio.fail_after(10):
        while runtime.plugins[ACTOR].state is not PluginState.RUNNING:
            await trio.sleep(0.001)
    return True
