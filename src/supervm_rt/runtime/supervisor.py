"""One plugin's whole career: each life in a nursery of its own, and what follows when a life ends (clauses D1, L1, L2, L5)."""

from __future__ import annotations

import dataclasses
import logging
import math
import random
from collections import deque
from dataclasses import dataclass

import trio

from supervm_rt import _abi
from supervm_rt.errors import (
    ChildEnded,
    HostError,
    LifecycleError,
    LoadError,
    ManifestMismatch,
    OperatorError,
    PluginHung,
    PluginQuarantined,
    RemoteEnded,
    RingCorrupt,
    StoreError,
    SuperVMError,
)
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Capability, Manifest, RestartPolicy
from supervm_rt.model.plugin import AssignedResources, Registration
from supervm_rt.runtime.admission import Admission, Services
from supervm_rt.runtime.chains import ChainPipeline, Translated
from supervm_rt.runtime.config import PluginConfig
from supervm_rt.runtime.lifecycle import ENDED, PluginState, check_transition
from supervm_rt.transports.interface import CallOverdue, Confinement, PluginTransport, Received
from supervm_rt.transports.network.broker import Broker
from supervm_rt.trust.manifest import compare_with_binary
from supervm_rt.trust.network import NetworkGrant

_logger = logging.getLogger("supervm_rt")

_PERMANENT = (OperatorError, LoadError, ManifestMismatch)
"""Another try would end the same way: somebody has to change a file or a setting first."""


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One plugin, as it is now."""

    plugin: str
    name: str
    version: str
    chain: str
    state: PluginState
    generation: int
    """Which life; 0 before the first registration."""
    placement: str | None
    """Where its code runs; None before it was decided."""
    confinement: Confinement | None
    """What is around its code; None: nothing, or it is not loaded yet."""
    idle: bool
    """It said end of input, and all that it said is committed."""
    finished: bool
    """It ended, and will not be started again by itself."""
    failure: SuperVMError | None
    """Why the last life ended, where it did not end well."""
    ring: _abi.RingStatistics | None
    network: NetworkGrant | None = None
    """What it may reach; None before it was decided."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was taken out of the ring at once, translated."""

    number: int
    """In this life, from 1."""
    translated: Translated


class PluginSupervisor:
    """Runs one plugin, life after life. ``run`` is the task; everything else may be called from other tasks of the same loop."""

    def __init__(
        self,
        plugin: str,
        config: PluginConfig,
        manifest: Manifest,
        pipeline: ChainPipeline | None,
        services: Services,
        *,
        generation: int = 0,
    ) -> None:
        """``generation``: of the last life that a plugin of this id had here."""
        self.plugin = plugin
        self.manifest = manifest
        self.chain = config.chain or manifest.chain
        self.config = config
        self._pipeline = pipeline
        self._services = services
        self._sink = services.sink
        self._state = PluginState.REGISTERED
        self._generation = generation
        self._admission = Admission(plugin, config, manifest, services, self._emit)
        self._transport: PluginTransport | None = None
        self._registration: Registration | None = None
        self._ended_input = False
        self._finished = False
        self._failure: SuperVMError | None = None
        self._quarantine = False
        self._life_over = trio.Event()
        self._stop_asked = trio.Event()
        self._rejections = 0
        self._dropped = 0
        self._dropped_told = -math.inf
        self._taken = 0
        """Batches that were taken out of the ring in this life."""
        self._committed = 0
        """Those of them that were committed: never one behind a batch that was not, since it would move the position past it."""

    # ---- what others may ask -------------------------------------------------------------------------------------------------

    def status(self) -> PluginStatus:
        """A snapshot."""
        running = self._state is PluginState.RUNNING
        streams = Capability.BLOCK_STREAM in self.manifest.capabilities
        return PluginStatus(
            plugin=self.plugin,
            name=self.manifest.name,
            version=self.manifest.version,
            chain=self.chain,
            state=self._state,
            generation=self._generation,
            placement=self._admission.decision.placement if self._admission.decision else None,
            confinement=self._transport.confinement if self._transport else None,
            idle=running and (self._ended_input or not streams),
            finished=self._finished,
            failure=self._failure,
            ring=self._transport.statistics() if self._transport else None,
            network=self._admission.decision.network if self._admission.decision else None,
        )

    def stop(self) -> None:
        """Ends the present life; no other follows. ``run`` returns when all is cleaned up."""
        self._stop_asked.set()
        self._life_over.set()

    # ---- the career ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lives until the plugin ends for good or the task is cancelled."""
        limits = self._services.config.restarts
        failures: deque[float] = deque(maxlen=limits.failures)
        try:
            while True:
                try:
                    await self._life()
                except Exception as error:
                    self._host_failed(error)
                    return
                if self._stop_asked.is_set() or self._state is PluginState.REFUSED:
                    return
                if self._failure is not None:
                    failures.append(trio.current_time())
                delay = self._next_delay(failures)
                if delay is None:
                    return
                self._emit(
                    EventKind.PLUGIN_RESTARTING,
                    f"{self.plugin}: starts again in {delay:.1f} s",
                    data={"seconds": round(delay, 3), "failures": len(failures)},
                )
                with trio.move_on_after(delay):
                    await self._stop_asked.wait()
                if self._stop_asked.is_set():
                    return
        finally:
            self._finished = True
            self._services.ended()

    def _host_failed(self, error: Exception) -> None:
        """What was never meant to happen ends this plugin, and nothing else."""
        _logger.exception("the supervision of %s failed", self.plugin, exc_info=error)
        if self._transport is not None:
            self._transport.abandon()
        self._failed(HostError(f"{self.plugin}: its supervision failed ({error!r})", remedy="please report it, with the log"))

    def _next_delay(self, failures: deque[float]) -> float | None:
        """Seconds until the next life; None: there is none."""
        limits = self._services.config.restarts
        if self._quarantine:
            self._quarantined(str(self._failure))
            return None
        if isinstance(self._failure, _PERMANENT):
            return None
        restart = self.config.restart or self.manifest.restart
        if restart is RestartPolicy.NEVER or (restart is RestartPolicy.ON_FAILURE and self._failure is None):
            return None
        recent = [moment for moment in failures if moment > trio.current_time() - limits.window]
        if len(recent) >= limits.failures:
            self._quarantined(f"failed {len(recent)} times within {limits.window:g} s")
            return None
        backoff = limits.first_delay * 2.0 ** max(len(recent) - 1, 0)
        return min(backoff, limits.longest_delay) * random.uniform(0.75, 1.25)

    def _quarantined(self, why: str) -> None:
        self._move(PluginState.QUARANTINED)
        self._emit(
            EventKind.PLUGIN_QUARANTINED,
            f"{self.plugin}: quarantined ({why}); it is not started again by itself",
            severity=Severity.ERROR,
            data={"reason": why},
        )

    # ---- one life ------------------------------------------------------------------------------------------------------------

    async def _life(self) -> None:
        self._begin_life()
        try:
            transport = await self._admission.admit(self._generation)
        except HostError as error:  # nothing against the plugin
            self._failed(error)
            self._move(PluginState.UNLOADED)
            return
        except SuperVMError as error:
            self._failed(error)
            self._move(PluginState.REFUSED)
            return
        self._transport = transport
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bring_up, transport, nursery)
                await self._life_over.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._end_life(transport)

    def _begin_life(self) -> None:
        """Registers: hands out id, generation and resources (clause L1)."""
        self._generation += 1
        if self._state is not PluginState.REGISTERED:
            self._move(PluginState.REGISTERED)
        self._failure = None
        self._ended_input = False
        self._rejections = 0
        self._dropped = 0
        self._dropped_told = -math.inf
        self._taken = self._committed = 0
        if not self._stop_asked.is_set():
            self._life_over = trio.Event()
        resources = self.manifest.resources
        self._registration = Registration(
            plugin=self.plugin,
            generation=self._generation,
            chain=self.chain,
            capabilities=self.manifest.capabilities,
            resources=AssignedResources(
                ring_bytes=self._services.config.ring_bytes,
                cpu=resources.cpu,
                memory=resources.memory,
                storage=resources.storage,
                enforced=False,
            ),
        )
        self._emit(
            EventKind.PLUGIN_REGISTERED,
            f"{self.plugin}: registered {self.manifest.name} {self.manifest.version} for chain {self.chain}",
            data={
                "name": self.manifest.name,
                "version": self.manifest.version,
                "capabilities": sorted(map(str, self.manifest.capabilities)),
                "ring_bytes": self._services.config.ring_bytes,
            },
        )

    async def _serve_network(self, broker: Broker) -> None:
        try:
            await broker.run()
        except SuperVMError as error:
            self._failed(error)

    async def _bring_up(self, transport: PluginTransport, nursery: trio.Nursery) -> None:
        """Load, init, start; what was said is received from load on."""
        assert self._admission.decision is not None
        try:
            self._move(PluginState.LOADING)
            said = await transport.load()
            self._move(PluginState.LOADED)
            self._tell_confinement(transport)
            compare_with_binary(self.manifest, said)
            transport.grant(
                capabilities=self._admission.decision.capabilities,
                configuration=self._admission.configuration(),
                position=await self._services.position(self.plugin, self.chain),
            )
            nursery.start_soon(self._receive, transport)
            if self._admission.broker is not None:
                nursery.start_soon(self._serve_network, self._admission.broker)
            self._move(PluginState.INITIALISING)
            await transport.init()
            self._move(PluginState.INITIALISED)
            self._move(PluginState.STARTING)
            nursery.start_soon(self._watch_silence, transport)
            await transport.start()
            self._move(PluginState.RUNNING)
        except SuperVMError as error:
            self._failed(error)

    def _tell_confinement(self, transport: PluginTransport) -> None:
        confinement = transport.confinement
        if confinement is None:
            return
        assert self._registration is not None
        resources = dataclasses.replace(self._registration.resources, enforced=not confinement.unenforced)
        self._registration = dataclasses.replace(self._registration, resources=resources)
        self._emit(
            EventKind.PLUGIN_CONFINED,
            f"{self.plugin}: {confinement}",
            severity=Severity.WARNING if confinement.degraded else Severity.INFO,
            data=dataclasses.asdict(confinement),
        )

    async def _receive(self, transport: PluginTransport) -> None:
        """Takes what the plugin says while the life lasts. One batch is translated while the one before it is committed."""
        turn = trio.Semaphore(1)
        async with trio.open_nursery() as commits:
            while not self._life_over.is_set():
                try:
                    received = transport.gather(await transport.receive())
                except SuperVMError as error:
                    self._failed(error)
                    return
                # Not to be cancelled half-way: a batch that was taken and not committed would be a hole below the next position.
                with trio.CancelScope(shield=True):
                    batch = await self._take(received)
                    if batch is not None:
                        await turn.acquire()
                        commits.start_soon(self._commit_in_turn, batch, turn)
                del received, batch  # Frames hold their place, and the plugin's payloads, which it may wait for.

    async def _take(self, received: Received) -> _Batch | None:
        """What is to be committed of it, if anything."""
        self._report(received)
        if not received.frames or self._pipeline is None:
            return None
        self._ended_input = False
        self._taken += 1
        return _Batch(self._taken, await self._pipeline.translate(received.frames))

    async def _commit_in_turn(self, batch: _Batch, turn: trio.Semaphore) -> None:
        try:
            await self._commit(batch)
        finally:
            turn.release()

    async def _commit(self, batch: _Batch) -> None:
        """Commits a batch, if those before it were committed. Not to be cancelled."""
        assert self._pipeline is not None
        assert self._registration is not None
        if batch.number != self._committed + 1 or self._quarantine:
            return
        try:
            with trio.CancelScope(shield=True):
                taken = await self._pipeline.commit(self._registration, batch.translated)
        except StoreError as error:
            self._services.store_failed(error)
            self._failed(error)
            return
        self._committed = batch.number
        position = taken.position
        if position and self._transport is not None:
            self._transport.committed(position)
        self._rejections += taken.rejections
        limit = self._services.config.rejection_limit
        if self._rejections > limit:
            self._quarantine = True
            self._failed(PluginQuarantined(f"{self.plugin}: more than {limit} of its blocks were rejected"))
        elif taken.end_of_input and self._committed == self._taken:
            self._ended_input = True
            self._emit(
                EventKind.PLUGIN_END_OF_INPUT, f"{self.plugin}: end of input, all of it committed", severity=Severity.DEBUG
            )
        self._services.changed()

    def _report(self, received: Received) -> None:
        for message in received.messages:
            if message.kind == _abi.MESSAGE_LOG:
                self._emit(EventKind.PLUGIN_LOG, message.text, severity=Severity(min(max(message.level, 0), 4)))
            elif message.kind == _abi.MESSAGE_METRIC:
                self._emit(
                    EventKind.PLUGIN_METRIC,
                    f"{message.text} = {message.value:g}",
                    severity=Severity.TRACE,
                    data={"name": message.text, "value": message.value},
                )
        for exhausted in received.exhausted:
            self._emit(
                EventKind.PLUGIN_QUOTA,
                f"{self.plugin}: {exhausted.message}",
                severity=Severity.WARNING,
                data={"resource": exhausted.resource},
            )
        if received.shutdown is not None:
            self._emit(
                EventKind.PLUGIN_SHUTDOWN_REQUESTED,
                f"{self.plugin}: asks to be shut down (reason {received.shutdown})",
                data={"reason": received.shutdown},
            )
            if received.shutdown != 0:
                self._failed(
                    LifecycleError(
                        f"{self.plugin}: gave up (reason {received.shutdown})", remedy="see the plugin's log lines above"
                    )
                )
            self._life_over.set()
        statistics = self._transport.statistics() if self._transport else None
        now = trio.current_time()
        if statistics is not None and statistics.dropped_messages > self._dropped and now >= self._dropped_told + 1.0:
            self._dropped_told = now  # a flood must not become one of these
            count = statistics.dropped_messages - self._dropped
            self._dropped = statistics.dropped_messages
            self._emit(
                EventKind.PLUGIN_DROPPED,
                f"{self.plugin}: {count} log lines or metrics came faster than they were taken, and were dropped",
                severity=Severity.WARNING,
                data={"dropped": count},
            )

    async def _watch_silence(self, transport: PluginTransport) -> None:
        """Ends the life of a plugin that owes a sign of life (clause L2)."""
        longest = transport.longest_silence
        while True:
            await trio.sleep(min(longest / 4, 1.0))
            silence = transport.silence()
            if silence is not None and silence > longest:
                self._emit(
                    EventKind.PLUGIN_SILENT,
                    f"{self.plugin}: no sign of life for {silence:.1f} s (allowed: {longest:g} s)",
                    severity=Severity.ERROR,
                    data={"seconds": round(silence, 3)},
                )
                self._failed(PluginHung(f"{self.plugin}: hung: no sign of life for {silence:.1f} s"))
                return

    async def _end_life(self, transport: PluginTransport) -> None:
        """Stop, take what is left, unload; with deadlines. Runs shielded."""
        if self._admission.broker is not None:
            self._admission.broker.close()  # whoever waits for the network waits no more
        try:
            if self._state in {PluginState.STARTING, PluginState.RUNNING}:
                self._move(PluginState.STOPPING)
            if self._state not in {PluginState.REGISTERED, PluginState.LOADING}:
                await self._stop(transport)
                await self._take_rest(transport)
            if self._state is PluginState.STOPPING:
                self._move(PluginState.STOPPED)
            await transport.unload()
            self._move(PluginState.UNLOADED)
        except SuperVMError as error:
            # Its code may still run: nothing of it can be taken away.
            transport.abandon()
            self._failed(error)
            self._move(PluginState.ABANDONED)
            self._emit(
                EventKind.PLUGIN_ABANDONED,
                f"{self.plugin}: abandoned; its thread, slot and mapping stay until the process ends ({error.message})",
                severity=Severity.ERROR,
                data={"slots_in_use": _abi.slots_in_use(), "slots": _abi.SLOT_COUNT},
            )

    async def _stop(self, transport: PluginTransport) -> None:
        try:
            await transport.stop()
        except CallOverdue:
            raise
        except (LifecycleError, ChildEnded) as error:  # it answered a number, or its process ended in it: it is over all the same
            self._failed(error)

    async def _take_rest(self, transport: PluginTransport) -> None:
        """What the plugin said before it stopped still counts."""
        while not self._quarantine and self._committed == self._taken:
            await trio.lowlevel.checkpoint()  # what holds no frames has none of its own
            try:
                rest = transport.receive_rest()
            except SuperVMError as error:  # its ring holds nonsense
                self._failed(error)
                return
            if not rest:
                return
            batch = await self._take(rest)
            if batch is not None:
                await self._commit(batch)
            del rest, batch

    # ---- small things --------------------------------------------------------------------------------------------------------

    def _failed(self, error: SuperVMError) -> None:
        """Notes why the life ends (the first reason counts) and ends it."""
        if isinstance(error, RingCorrupt):
            self._quarantine = True  # what once lied in its ring is not started again by itself
        if self._failure is None:
            self._failure = error
            self._emit(
                EventKind.PLUGIN_FAILED,
                str(error),
                severity=Severity.ERROR,
                data={"blame": error.blame, "cause": self._cause(error)},
            )
        self._life_over.set()

    @staticmethod
    def _cause(error: SuperVMError) -> str:
        """A word for programs: what kind of failure it was."""
        match error:
            case ChildEnded() | RemoteEnded():
                return error.cause
            case RingCorrupt():
                return "corrupt-ring"
            case PluginHung() | CallOverdue():
                return "hang"
            case LoadError() | ManifestMismatch():
                return "load"
            case LifecycleError():
                return "lifecycle"
        return "other"

    def _move(self, new: PluginState) -> None:
        old = self._state
        check_transition(self.plugin, old, new)
        self._state = new
        self._emit(
            EventKind.PLUGIN_STATE,
            f"{self.plugin}: {new}",
            severity=Severity.DEBUG,
            data={"from": str(old), "to": str(new), "ended": new in ENDED},
        )
        self._services.changed()

    def _emit(
        self, kind: EventKind, message: str, *, severity: Severity = Severity.INFO, data: dict[str, object] | None = None
    ) -> None:
        self._sink.emit(kind, message, severity=severity, registration=self._registration, plugin=self.plugin, data=data)
