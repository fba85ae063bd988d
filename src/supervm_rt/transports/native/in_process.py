"""A native plugin inside the host's own process (clause T1): for development only, with the host's full rights."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from supervm_rt._abi import NativePlugin, RingStatistics, SealedLibrary
from supervm_rt.errors import HostError, LifecycleError, LoadError
from supervm_rt.model.manifest import Capability
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.interface import CallOverdue, Received
from supervm_rt.transports.native.calls import ForeignCall
from supervm_rt.transports.shortage import NO_DESCRIPTOR, host_error
from supervm_rt.trust.policy import Placement

T = TypeVar("T")

MAX_FRAMES = 8_192
MAX_MESSAGES = 1_024
DEFAULT_HEARTBEAT = 30.0
"""Seconds between two beats, told to a plugin that asks for the heartbeat and whose manifest names none."""


class InProcessTransport:
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
        """``library`` is closed once it is loaded. ``heartbeat``: seconds, from the manifest.

        ``network``: the plugin's end of a Broker, closed once the library is loaded.
        """
        self._library = library
        self._name = name
        self._generation = generation
        self._ring_bytes = ring_bytes
        self._heartbeat = heartbeat
        self._deadlines = deadlines
        self._network = network
        self._plugin: NativePlugin | None = None
        self._constructed: NativePlugin | None = None
        """Set by the loading thread, before anybody waited for it."""
        self._given_up = False
        self._loading: ForeignCall[NativePlugin] | None = None
        self._initialising: ForeignCall[int] | None = None
        self._starting: ForeignCall[int] | None = None
        self._start_begun = 0.0
        self._calls: list[ForeignCall[Any]] = []
        self._next = "load"
        """The one call of load, grant, init and start that may come next; none of them where it is empty."""
        self._ended = False
        """It was stopped, unloaded or given up."""
        self._shutdown_told = False
        self._last_statistics: RingStatistics | None = None

    @property
    def _loaded(self) -> NativePlugin:
        if self._plugin is None:
            raise LifecycleError(f"{self._name}: not loaded")
        return self._plugin

    def _take(self, call: str) -> None:
        """Takes the call that is next, so that none is made twice. Raises LifecycleError for any other, and changes nothing."""
        if call != self._next or self._ended:
            allowed = f"{self._next} is next" if self._next and not self._ended else "nothing can be begun any more"
            raise LifecycleError(
                f"{self._name}: {call} was called out of order ({allowed})", remedy="load, grant, init, start, stop"
            )
        self._next = ""

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
            raise HostError(
                f"{self._name}: there is no room for its ring of {self._ring_bytes} bytes ({error or 'no memory'})",
                remedy="set a smaller ring, or raise the limits of this process",
            ) from None
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

    def _check(self, call: str, code: int) -> None:
        if code != 0:
            raise LifecycleError(
                f"{self._name}: {call} answered {code}", remedy="see the plugin's log lines above and its documentation"
            )

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
        shutdown = None
        if not self._shutdown_told and plugin.shutdown_request is not None:
            self._shutdown_told = True
            shutdown = plugin.shutdown_request
        # Frames last: an error about the messages would lose them. A quarter of the ring at a time: the plugin writes on while a
        # batch is worked upon.
        messages = plugin.read_messages(MAX_MESSAGES)
        return Received(frames=plugin.read(MAX_FRAMES, self._ring_bytes // 4), messages=messages, shutdown=shutdown)

    def committed(self, position: bytes) -> None:
        """Nothing to tell: the plugin is given its position when it is started."""

    async def stop(self) -> None:
        """Ends every wait of the plugin inside the host, then plugin_stop where it was initialised. Raises CallOverdue.

        A plugin_start that is under way has its own deadline first.
        """
        plugin = self._loaded
        if self._ended:
            raise LifecycleError(f"{self._name}: stop was called out of order (it has ended)", remedy="stop once, before unload")
        self._ended = True
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
        self._ended = True
        with trio.CancelScope(shield=True):
            await self._finish_loading()
            if self._plugin is not None and not self._plugin.closed:
                self._plugin.begin_stop()
                self._last_statistics = self._plugin.statistics()
                plugin, calls = self._plugin, tuple(self._calls)

                def close() -> None:
                    for call in calls:
                        call.join()
                    plugin.close()

                await self._call(close, "unloading").wait(self._deadlines.stop)
            self._library.close()

    async def _finish_loading(self) -> None:
        """Takes what a cancelled load left under way, so that it is unloaded too."""
        if self._plugin is None and self._loading is not None:
            try:
                self._plugin = await self._loading.wait(self._deadlines.stop)
            except CallOverdue:
                raise
            except Exception:
                return  # there is nothing to unload; why was told where load was waited for

    def abandon(self) -> None:
        """Gives the plugin up: thread, slot and mapping stay."""
        self._ended = True
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
        if self._heartbeat is None and not self._plugin.heartbeat_asked:
            return None
        return max(time.monotonic_ns() - self._plugin.last_sign_of_life, 0) / 1e9

    @property
    def longest_silence(self) -> float:
        """Seconds of silence that are allowed."""
        return self._heartbeat if self._heartbeat is not None else DEFAULT_HEARTBEAT

    def statistics(self) -> RingStatistics | None:
        """Counters of the ring."""
        if self._plugin is None or self._plugin.closed:
            return self._last_statistics
        return self._plugin.statistics()
