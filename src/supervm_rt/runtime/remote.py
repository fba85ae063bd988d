"""What the gRPC server is told of the runtime: who may register, what subscribers get (clauses L1, R1, R2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervm_rt.errors import ConfigurationError, ManifestError, ManifestMismatch, PolicyRefused
from supervm_rt.ir.render import block_json
from supervm_rt.model.chain import Step
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Capability, Manifest, RestartPolicy, RunMode
from supervm_rt.runtime.config import PluginConfig
from supervm_rt.runtime.lifecycle import PluginState
from supervm_rt.transports.remote.introduction import Event, Introduction, Said
from supervm_rt.trust.manifest import compare_with_binary, parse_manifest

if TYPE_CHECKING:
    from supervm_rt.runtime.runtime import Runtime
    from supervm_rt.runtime.supervisor import PluginSupervisor
    from supervm_rt.store.feed import Subscription

MOST_ENDED_NEWCOMERS = 256
"""Plugins that nobody configured, and that have ended, of which the runtime still knows."""


class RemoteDoor:
    """The node, as the gRPC server sees it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._newcomers: dict[str, Manifest] = {}

    async def opened(self, seconds: float) -> bool:
        """Waits until the plugins of the configuration are known: one that was connected to the node's last life may come again
        while this one is still being opened, and would be taken for a stranger. False: it takes longer than so many seconds."""
        with trio.move_on_after(seconds):
            await self._runtime.wait_opened()
            return True
        return False

    def read(self, introduction: Introduction) -> Said:
        """Reads what a plugin says of itself. Raises ManifestError, ManifestMismatch, ConfigurationError."""
        return Said(introduction, _said(introduction))

    async def admit(self, said: Said) -> str:
        """The id of the plugin that registers; one that is not known is added where the policy allows it.

        Raises ManifestError, ManifestMismatch, PolicyRefused, ConfigurationError.
        """
        runtime = self._runtime
        known = self._known(said.introduction, said.manifest)
        if known is None:
            return await self._newcomer(said.manifest)
        if said.agrees is not known.manifest:
            _compare(known.manifest, said.introduction)
            said.agrees = known.manifest
        status = known.status()
        if not status.finished:
            return known.plugin
        restart = known.config.restart or known.manifest.restart
        if status.state in {PluginState.QUARANTINED, PluginState.REFUSED} or (
            status.failure is not None and restart is RestartPolicy.NEVER and known.plugin not in self._newcomers
        ):
            raise PolicyRefused(
                f"{known.plugin} ended and is not started again ({status.failure or status.state})",
                remedy="ask the operator of this node",
            )
        if known.plugin in self._newcomers:
            return await self._newcomer(said.manifest)
        return await runtime.add(known.config, manifest=known.manifest)

    def _known(self, introduction: Introduction, said: Manifest) -> PluginSupervisor | None:
        supervisors = self._runtime.supervisors
        if introduction.peer.plugin is not None:
            return supervisors.get(introduction.peer.plugin)
        external = [
            each for each in supervisors.values() if each.manifest.run_mode is RunMode.GRPC and each.manifest.binary is None
        ]
        for wanted in (said.id, introduction.name):
            for each in external:
                if wanted == each.plugin:
                    return each
        matching = [each for each in external if said.id == each.manifest.id or introduction.name == each.manifest.name]
        if len(matching) > 1:
            raise ConfigurationError(
                f"{len(matching)} plugins of this node are called {introduction.name}",
                remedy="register under the name that the node's configuration gives it",
            )
        return matching[0] if matching else None

    async def _newcomer(self, manifest: Manifest) -> str:
        runtime = self._runtime
        decision = runtime.policy.decide(manifest, b"")
        if not decision.allowed:
            raise PolicyRefused(f"{manifest.id} is not configured here, and {decision.reason}", remedy=decision.remedy)
        ended = [each for each in self._newcomers if (known := runtime.supervisors.get(each)) and known.status().finished]
        for each in ended[: max(0, len(ended) - MOST_ENDED_NEWCOMERS)]:
            if each != manifest.id:
                del self._newcomers[each]
                runtime.forget(each)
        config = PluginConfig(path=Path(), name=manifest.id, restart=RestartPolicy.NEVER)
        plugin = await runtime.add(config, manifest=manifest)
        self._newcomers[plugin] = manifest
        return plugin

    def withdraw(self, said: Said, taken: Callable[[str], bool]) -> None:
        """Ends a plugin that was added for a registration which was broken off, where nobody else registered as it."""
        plugin = said.manifest.id
        known = self._runtime.supervisors.get(plugin)
        if self._newcomers.get(plugin) is said.manifest and known is not None and not taken(plugin):
            known.stop()

    def refusal(self, plugin: str) -> str:
        """Why a plugin that was admitted will have no further life by itself; empty: it has one, or will."""
        known = self._runtime.supervisors.get(plugin)
        if known is None:
            return "it is not known any more"
        status = known.status()
        return str(status.failure or f"it is {status.state}") if status.finished else ""

    def subscribe(
        self,
        chains: Sequence[str],
        *,
        cursor: str | None,
        start: str | int,
        steps: Iterable[Step],
        raw: bool,
        ir: bool,
        follow: bool,
    ) -> Subscription:
        """Events of chains."""
        return self._runtime.subscribe(chains, cursor=cursor, start=start, steps=steps, raw=raw, ir=ir, follow=follow)

    def ir_json(self, event: Event) -> str:
        """The IR of an event's block as JSON, in the shape BlockIR."""
        if event.ir is None:
            return ""
        rendered = block_json(event.ir, chain=event.chain, height=event.block.height)
        return json.dumps(rendered, separators=(",", ":"))

    async def network(self, chain: str) -> str:
        """The network of a chain of the store."""
        return await self._runtime.network(chain)

    async def chains(self, cursor: str | None) -> Sequence[str]:
        """Names of all chains of the store, or of those of a cursor."""
        return await self._runtime.stored_chains(cursor)

    @property
    def ending(self) -> bool:
        """The node is being ended."""
        return self._runtime.ending

    def health(self) -> tuple[bool, str]:
        """Whether the node serves, and a line about it."""
        if self._runtime.failure is not None:
            return False, str(self._runtime.failure)
        plugins = self._runtime.plugins.values()
        running = sum(status.state is PluginState.RUNNING for status in plugins)
        return True, f"{running} of {len(plugins)} plugins are running"

    def report(
        self, kind: EventKind, message: str, *, severity: Severity = Severity.INFO, data: Mapping[str, object] | None = None
    ) -> None:
        """Hands an event to the node's sink."""
        self._runtime.sink.emit(kind, message, severity=severity, data=data)


def _said(introduction: Introduction) -> Manifest:
    """The manifest that a plugin sends, or what its other fields say of it. Raises ManifestError."""
    if introduction.manifest:
        manifest = parse_manifest(introduction.manifest.encode("utf-8", "replace"), source="manifest_json")
        differing = [
            field
            for field, one, other in (
                ("name", introduction.name, manifest.name),
                ("version", introduction.version, manifest.version),
                ("chain", introduction.chain, manifest.chain),
            )
            if one and one not in {other, manifest.id}
        ]
        if differing:
            raise ManifestMismatch(
                f"{manifest.id}: {' and '.join(differing)} differ between the request and its manifest_json",
                remedy="send the same in both",
            )
        return manifest
    try:
        capabilities = frozenset(map(Capability, introduction.capabilities))
    except ValueError as error:
        raise ManifestError(f"{introduction.name!a}: {error}", remedy=f"use {', '.join(Capability)}") from None
    for what, text in (("name", introduction.name), ("version", introduction.version), ("chain", introduction.chain)):
        if len(text) > 200:
            raise ManifestError(f"its {what} has {len(text)} characters", remedy="shorten it to 200 at most")
    # Raises ConfigurationError for a name or a chain that cannot be one.
    PluginConfig(path=Path(), name=introduction.name, chain=introduction.chain)
    return Manifest(
        id=introduction.name,
        name=introduction.name,
        version=introduction.version,
        chain=introduction.chain,
        capabilities=capabilities,
        binary=None,
        run_mode=RunMode.GRPC,
    )


def _compare(manifest: Manifest, introduction: Introduction) -> None:
    """Raises ManifestMismatch where a plugin says something else of itself than the operator's manifest."""
    if introduction.manifest:
        said = json.loads(introduction.manifest)
    else:
        said = {
            "id": manifest.id,
            "name": manifest.name,
            "version": introduction.version,
            "chain": introduction.chain,
            "capabilities": list(introduction.capabilities),
        }
    compare_with_binary(manifest, json.dumps(said).encode())
