"""How a plugin is let in: its binary is read and sealed, and the policy asked about these very bytes (clauses S1, S2, L1)."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from supervm_rt.errors import ConfigurationError, PolicyRefused, StoreError
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Manifest, RunMode
from supervm_rt.runtime.binary import read_library, read_program
from supervm_rt.runtime.config import PluginConfig, RuntimeConfig
from supervm_rt.runtime.sink import EventSink
from supervm_rt.transports.interface import PluginTransport
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.transports.native.in_process import InProcessTransport
from supervm_rt.transports.network.broker import Broker, Report
from supervm_rt.transports.network.resolving import MOST_LOOKUPS, Resolver
from supervm_rt.transports.shortage import host_error
from supervm_rt.trust.policy import Decision, Placement, Policy, PolicyLevel

if TYPE_CHECKING:
    from supervm_rt._abi import SealedLibrary
    from supervm_rt.transports.remote.images import Layout
    from supervm_rt.transports.remote.server import RemoteServer


class Services(Protocol):
    """What a supervisor needs of the runtime that owns it."""

    config: RuntimeConfig
    sink: EventSink
    policy: Policy
    resolver: Resolver

    async def position(self, plugin: str, chain: str) -> bytes | None:
        """The durable position of a plugin on a chain."""

    async def remote(self) -> RemoteServer:
        """The gRPC server; started where it does not run yet. Raises OperatorError."""

    def store_failed(self, error: StoreError) -> None:
        """Ends the runtime with this error."""

    def ended(self) -> None:
        """Says that this plugin has ended for good."""

    def changed(self) -> None:
        """Wakes whoever waits for a change of some plugin's status."""


class Emit(Protocol):
    """Hands an event about the plugin to the node's sink."""

    def __call__(
        self, kind: EventKind, message: str, *, severity: Severity = Severity.INFO, data: dict[str, object] | None = None
    ) -> None:
        """One event."""


class Admission:
    """Lets one plugin in, life after life."""

    def __init__(self, plugin: str, config: PluginConfig, manifest: Manifest, services: Services, emit: Emit) -> None:
        self.plugin = plugin
        self.manifest = manifest
        self.config = config
        self._services = services
        self._emit = emit
        self._lookups = trio.CapacityLimiter(MOST_LOOKUPS)
        self.decision: Decision | None = None
        """What the policy said; None before it was asked."""
        self.broker: Broker | None = None
        """What serves the network of the present life, where it was granted any."""

    async def admit(self, generation: int) -> PluginTransport:
        """Reads and seals the binary and asks the policy about these very bytes. Raises what refuses the plugin.

        A HostError does not: it may be let in later.
        """
        try:
            if self.manifest.run_mode is RunMode.GRPC:
                return await self._admit_remote(generation)
            return await self._admit_native(generation)
        except OSError as error:
            raise host_error(self.plugin, "it cannot be read and sealed", error) from None

    async def _admit_native(self, generation: int) -> PluginTransport:
        placement = self._services.policy.placement(self.manifest, self.config.placement)
        library = await trio.to_thread.run_sync(read_library, self.config.path, self.manifest, placement)
        try:
            return self._transport(library, generation)
        except BaseException:
            library.close()
            raise

    def _transport(self, library: SealedLibrary, generation: int) -> PluginTransport:
        decision = self._decide(library.sha256)
        if decision.placement is Placement.IN_PROCESS:
            return InProcessTransport(
                library,
                name=self.plugin,
                generation=generation,
                ring_bytes=self._services.config.ring_bytes,
                heartbeat=self.manifest.heartbeat,
                deadlines=self._services.config.deadlines,
                network=self._make_broker(decision, generation),
            )
        return ChildTransport(
            library,
            name=self.plugin,
            generation=generation,
            ring_bytes=self._services.config.ring_bytes,
            heartbeat=self.manifest.heartbeat,
            deadlines=self._services.config.deadlines,
            security=self.manifest.security,
            folder=self.config.path,
            read_paths=self._read_paths(),
            resources=self.manifest.resources,
            storage=self._services.config.storage_of(self.plugin),
            complete=decision.level is PolicyLevel.STRICT,
            network=self._make_broker(decision, generation),
        )

    def _make_broker(self, decision: Decision, generation: int) -> socket.socket | None:
        """Puts up what serves the plugin's network, where it was granted any. Returns the plugin's end."""
        self.broker = None
        if not decision.network:
            return None
        self.broker = Broker(
            self.plugin,
            generation,
            decision.network,
            resolver=self._services.resolver,
            lookups=self._lookups,
            report=self._tell_network,
        )
        return self.broker.plugin_end

    def _tell_network(self, report: Report) -> None:
        severity = Severity.WARNING if report.action in {"refused", "throttled"} else Severity.INFO
        self._emit(
            EventKind.PLUGIN_NETWORK,
            f"{self.plugin}: {report}",
            severity=severity,
            data={"host" if name == "name" else name: value for name, value in dataclasses.asdict(report).items()},
        )

    async def _admit_remote(self, generation: int) -> PluginTransport:
        """The same for a plugin that comes over gRPC."""
        code: SealedLibrary | Layout | None = None
        if self.manifest.binary is not None:
            code = await trio.to_thread.run_sync(read_program, self.config.path, self.manifest)
        try:
            decision = self._decide(b"" if code is None else code.sha256)
            server = await self._services.remote()
        except BaseException:
            if code is not None:
                code.close()
            raise
        return server.transport(
            self.plugin,
            manifest=self.manifest,
            generation=generation,
            window=self._services.config.ring_bytes,
            deadlines=self._services.config.deadlines,
            code=code,
            folder=self.config.path,
            read_paths=self._read_paths(),
            storage=self._services.config.storage_of(self.plugin),
            complete=decision.level is PolicyLevel.STRICT,
        )

    def _decide(self, sha256: bytes) -> Decision:
        """Asks the policy. Raises PolicyRefused."""
        decision = self._services.policy.decide(self.manifest, sha256, self.config.placement, self.config.network)
        self.decision = decision
        self._emit(
            EventKind.POLICY_DECISION,
            f"{self.plugin}: {'allowed' if decision.allowed else 'refused'}: {decision.reason}",
            severity=Severity.INFO if decision.allowed else Severity.ERROR,
            data={
                "level": str(decision.level),
                "allowed": decision.allowed,
                "sha256": sha256.hex(),
                "capabilities": sorted(map(str, decision.capabilities)),
                "placement": decision.placement,
                "network": decision.network.as_data(),
                "warnings": list(decision.warnings),
            },
        )
        for warning in decision.warnings:
            self._emit(EventKind.POLICY_DECISION, f"{self.plugin}: {warning}", severity=Severity.WARNING)
        if not decision.allowed:
            raise PolicyRefused(f"{self.plugin}: {decision.reason}", remedy=decision.remedy)
        return decision

    def configuration(self) -> bytes:
        """The plugin's settings as JSON; paths that it may read are made absolute, without links."""
        settings = dict(self.config.settings)
        settings.update({key: str(path) for key, path in self._read_paths().items()})
        try:
            return json.dumps(settings, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"{self.plugin}: the settings cannot be handed over ({error})") from None

    def _read_paths(self) -> dict[str, Path]:
        """What the plugin may read: the operator's values for the keys that the manifest names."""
        paths = {}
        folder = self.config.settings_folder
        try:
            for key in self.manifest.security.read_paths:
                value = self.config.settings.get(key)
                if isinstance(value, str):
                    paths[key] = ((folder or Path.cwd()) / Path(value).expanduser()).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"{self.plugin}: the settings cannot be handed over ({error})") from None
        return paths
