"""A native plugin inside the host's own process (clause T1): for development only, with the host's full rights."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from supervm_rt._abi import NativePlugin, RingStatistics, SealedLibrary
from supervm_rt.errors import LifecycleError, LoadError
from supervm_rt.model.manifest import Capability
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.interface import CallOverdue, Received
from supervm_rt.transports.native.calls import ForeignCall
from supervm_rt.transports.native.life import NativeLife
from supervm_rt.transports.shortage import NO_DESCRIPTOR, host_error
from supervm_rt.trust.policy import Placement

T = TypeVar("T")

MAX_FRAMES = 8_192
MAX_MESSAGES = 1_024


class InProcessTransport(NativeLife):
    """One life of one library in one slot of this process. See PluginTransport for the contract."""

    placement = Placement.IN_PROCESS
    confinement = None

    def __init__(
        self,
        library: SealedLibrary,
        *,
        name: str,
        generation: int,
        ring_bytes: int,
        heartbeat: float | None,
        deadlines: Deadlines,
        network: socket.socket | None = None,
    ) -> None:
        """See NativeLife."""
        super().__init__(
            library,
            name=name,
            generation=generation,
            ring_bytes=ring_bytes,
            heartbeat=heartbeat,
            deadlines=deadlines,
            network=network,
        )
        self._plugin: NativePlugin | None = None
        self._constructed: NativePlugin | None = None
        """Set by the loading thread, before anybody waited for it."""
        self._given_up = False
        self._loading: ForeignCall[NativePlugin] | None = None
        self._initialising: ForeignCall[int] | None = None
        self._starting: ForeignCall[int] | None = None
        self._calls: list[ForeignCall[Any]] = []
        self._last_statistics: RingStatistics | None = None

    @property
    def _loaded(self) -> NativePlugin:
        if self._plugin is None:
            raise LifecycleError(f"{self._name}: not loaded")
        return self._plugin

    def _call(self, function: Callable[[], T], what: str) -> ForeignCall[T]:
        call = ForeignCall(function, f"{self._name}: {what}")
        self._calls.append(call)
        return call

    async def load(self) -> bytes:
        """Loads the library, which runs its constructors, and asks it for its manifest. Raises LoadError, CallOverdue."""

        def construct() -> NativePlugin:
            try:
                self._constructed = NativePlugin(
                    self._library,
                    ring_bytes=self._ring_bytes,
                    generation=self._generation,
                    heartbeat_interval_ms=round(self.longest_silence * 1000),
                )
            finally:
                self._library.close()
            if self._given_up:
                self._constructed.abandon()
            return self._constructed

        self._take("load")
        self._loading = self._call(construct, "loading")
        try:
            self._plugin = await self._loading.wait(self._deadlines.load)
        except LoadError as error:
            if os.strerror(errno.EMFILE) in error.message:  # the dynamic linker's words
                raise host_error(self._name, "it cannot be loaded", OSError(errno.EMFILE, "")) from None
            raise LoadError(f"{self._name}: {error.message}", remedy=error.remedy) from None
        except (MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
                raise host_error(self._name, "it cannot be loaded", error) from None
            raise self._no_room(error) from None
        if self._network is not None:
            self._plugin.attach_network(self._network.fileno())
            self._network.close()
        asking = self._call(self._plugin.manifest_json, "plugin_get_manifest_json")
        with trio.CancelScope(shield=True):
            said = await asking.wait(self._deadlines.load)
        self._next = "grant"
        return said

    def grant(self, *, capabilities: frozenset[Capability], configuration: bytes, position: bytes | None) -> None:
        """Says what host_get_extension and the callbacks may answer."""
        plugin = self._loaded
        self._take("grant")
        plugin.grant(capabilities=frozenset(map(str, capabilities)), configuration=configuration, position=position)
        self._next = "init"

    async def init(self) -> None:
        """plugin_init."""
        plugin = self._loaded
        self._take("init")
        self._initialising = self._call(plugin.init, "plugin_init")
        self._check("plugin_init", await self._initialising.wait(self._deadlines.init))
        self._next = "start"

    async def start(self) -> None:
        """plugin_start."""
        plugin = self._loaded
        self._take("start")
        self._start_begun = trio.current_time()
        self._starting = self._call(plugin.start, "plugin_start")
        self._check("plugin_start", await self._starting.wait(self._deadlines.start))

    async def receive(self) -> Received:
        """Waits for frames, messages or a request for shutdown."""
        plugin = self._loaded
        # No checkpoint between taking frames and returning them: a cancellation there would lose what was taken.
        await trio.lowlevel.checkpoint()
        while True:
            received = self.receive_rest()
            if received:
                return received
            if plugin.prepare_wait():
                try:
                    await trio.lowlevel.wait_readable(plugin.event_fd)
                finally:
                    plugin.finish_wait()

    def receive_rest(self) -> Received:
        """What is there now."""
        plugin = self._loaded
        # Frames last: an error about the messages would lose them. A quarter of the ring at a time: the plugin writes on while a
        # batch is worked upon.
        messages = plugin.read_messages(MAX_MESSAGES)
        return Received(
            frames=plugin.read(MAX_FRAMES, self._ring_bytes // 4),
            messages=messages,
            shutdown=self._news_of_shutdown(plugin.shutdown_request),
        )

    async def stop(self) -> None:
        """Ends every wait of the plugin inside the host, then plugin_stop where it was initialised. Raises CallOverdue.

        A plugin_start that is under way has its own deadline first.
        """
        plugin = self._loaded
        self._take_stop()
        plugin.begin_stop()
        with trio.CancelScope(shield=True):
            begun = trio.current_time()
            if self._initialising is None or await self._initialising.wait(self._deadlines.stop) != 0:
                plugin.end_calls()  # plugin_stop is for what was initialised; threads of this one may talk on
                return
            if self._starting is not None and self._starting.running:
                # Called now, plugin_stop could overtake it. Only where start is overdue is it to run beside it.
                await self._starting.settle(self._deadlines.start, spent=trio.current_time() - self._start_begun)
                begun = trio.current_time()
            code = await self._call(plugin.stop, "plugin_stop").wait(self._deadlines.stop, spent=trio.current_time() - begun)
            if self._starting is not None and self._starting.running:
                await self._starting.wait(self._deadlines.stop, spent=trio.current_time() - begun)
        self._check("plugin_stop", code)

    async def unload(self) -> None:
        """Unmaps the library and frees its slot. Raises LifecycleError, CallOverdue: then it was abandoned."""
        self._over = True
        with trio.CancelScope(shield=True):
            plugin, calls = await self._what_was_loaded(), tuple(self._calls)
            if plugin is not None and not plugin.closed:
                plugin.begin_stop()
                self._last_statistics = plugin.statistics()

                def close() -> None:
                    for call in calls:
                        call.join()
                    plugin.close()

                await self._call(close, "unloading").wait(self._deadlines.stop)
            self._library.close()

    async def _what_was_loaded(self) -> NativePlugin | None:
        """Also what a load that was cancelled has left under way; None: there is nothing. Raises CallOverdue."""
        if self._plugin is not None or self._loading is None:
            return self._plugin
        try:
            return await self._loading.wait(self._deadlines.stop)
        except CallOverdue:
            raise
        except Exception:
            return None  # why was told where load was waited for

    def abandon(self) -> None:
        """Gives the plugin up: thread, slot and mapping stay."""
        self._over = True
        # In this order: a load that returns just now sees the one, or is seen by the other.
        self._given_up = True
        plugin = self._plugin or self._constructed
        if plugin is not None and not plugin.closed:
            plugin.begin_stop()
            plugin.abandon()

    def silence(self) -> float | None:
        """Seconds since the last sign of life, for a plugin that asked for the heartbeat or whose manifest sets one."""
        if self._plugin is None or self._starting is None:
            return None
        return self._silence_since(self._plugin.last_sign_of_life, asked=self._plugin.heartbeat_asked)

    def statistics(self) -> RingStatistics | None:
        """Counters of the ring."""
        if self._plugin is None or self._plugin.closed:
            return self._last_statistics
        return self._plugin.statistics()
