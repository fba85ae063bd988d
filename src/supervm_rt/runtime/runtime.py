"""The runtime itself: a store, its chains, and one supervisor for each plugin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import ConfigurationError, StoreError, SuperVMError
from supervm_rt.ir.registry import translator_for
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.manifest import Capability, Manifest, RunMode
from supervm_rt.runtime.binary import read_manifest
from supervm_rt.runtime.chains import ChainPipeline, ChainSummary
from supervm_rt.runtime.config import ChainDefault, PluginConfig, RuntimeConfig
from supervm_rt.runtime.remote import RemoteDoor
from supervm_rt.runtime.retention import keep_retention
from supervm_rt.runtime.sink import EventSink, Receiver
from supervm_rt.runtime.status import serve_status
from supervm_rt.runtime.supervisor import PluginStatus, PluginSupervisor
from supervm_rt.store import Store
from supervm_rt.store.feed import Feed
from supervm_rt.trust.policy import Policy

if TYPE_CHECKING:
    from supervm_rt.transports.remote.server import RemoteServer


class Runtime:
    """What ``open_runtime`` gives: ask it, add plugins to it, wait for it. Use it from the Trio task tree that opened it."""

    def __init__(
        self,
        config: RuntimeConfig,
        store: Store,
        feed: Feed,
        sink: EventSink,
        *,
        nursery: trio.Nursery,
        servers: trio.Nursery,
    ) -> None:
        """For ``open_runtime``."""
        self.config = config
        self.sink = sink
        self.policy = Policy(config.policy)
        self.resolver = config.resolver
        self._store = store
        self._feed = feed
        self.subscribe = feed.subscribe
        """The events of chains, also of such as earlier runs have mirrored, as an async iterator: see ``Feed.subscribe``. It ends
        with the runtime."""
        self.stored_chains = feed.stored_chains
        """The names of all chains of the store, also of such as no plugin feeds now: see ``Feed.stored_chains``."""
        self._nursery = nursery
        self._servers = servers
        self._store_turn = trio.Lock()
        self._chains: dict[str, ChainPipeline] = {}
        self._supervisors: dict[str, PluginSupervisor] = {}
        self._change = trio.Event()
        self._adding = trio.Lock()
        self._closed = False
        self._opened = trio.Event()
        self._remote: RemoteServer | None = None
        self._remote_turn = trio.Lock()
        self._serving: trio.CancelScope | None = None
        self.failure: SuperVMError | None = None
        """Why the runtime ended, where it ended by itself."""

    # ---- plugins -------------------------------------------------------------------------------------------------------------

    async def add(self, config: PluginConfig, *, manifest: Manifest | None = None) -> str:
        """Registers a plugin and starts its nursery. Returns its id in this runtime. Raises OperatorError, StoreError.

        One that has finished can be added again, with a new configuration. ``manifest``: instead of the one in its folder.

        The plugin's own failures do not come out here: they are events, and show in ``plugins``.
        """
        async with self._adding:
            if self._closed:
                raise ConfigurationError("the runtime has ended", remedy="add plugins inside its async with block")
            if manifest is None:
                manifest = await trio.to_thread.run_sync(read_manifest, config.path)
            plugin = config.name or manifest.id
            namesake = self._supervisors.get(plugin)
            if namesake is not None and not namesake.status().finished:
                raise ConfigurationError(f"two plugins are called {plugin}", remedy="give one of them a name of its own (name:)")
            pipeline = None
            if Capability.BLOCK_STREAM in manifest.capabilities:
                pipeline = await self._pipeline(config, manifest)
            if manifest.run_mode is RunMode.GRPC:
                await self.remote()
            generation = 0 if namesake is None else namesake.status().generation
            supervisor = PluginSupervisor(plugin, config, manifest, pipeline, self, generation=generation)
            self._supervisors[plugin] = supervisor
            self._nursery.start_soon(supervisor.run, name=f"plugin {plugin}")
            return plugin

    def forget(self, plugin: str) -> None:
        """Knows nothing any more of a plugin that has finished."""
        if plugin in self._supervisors and self._supervisors[plugin].status().finished:
            del self._supervisors[plugin]

    def opened(self) -> None:
        """All plugins of the configuration were added. For ``open_runtime``."""
        self._opened.set()

    async def wait_opened(self) -> None:
        """Waits until all plugins of the configuration were added, or no more will be."""
        await self._opened.wait()

    def close(self) -> None:
        """Takes no more plugins. For ``open_runtime``."""
        self._closed = True
        self._opened.set()

    @property
    def ending(self) -> bool:
        """It takes no more plugins, and stops those that it has."""
        return self._closed

    async def _pipeline(self, config: PluginConfig, manifest: Manifest) -> ChainPipeline:
        name = config.chain or manifest.chain
        translator = translator_for(manifest.chain, config.settings)
        depth = translator.default_final_depth if isinstance(config.final_depth, ChainDefault) else config.final_depth
        rules = ForkRules(mode=config.mode or translator.default_mode, final_depth=depth, orphan_limit=config.orphan_limit)
        existing = self._chains.get(name)
        if existing is not None:
            theirs = existing.translator
            if (theirs.family, theirs.network) != (translator.family, translator.network):
                raise ConfigurationError(
                    f"chain {name} is {theirs.family} {theirs.network}, and another plugin feeds it "
                    f"{translator.family} {translator.network}",
                    remedy="give one of them a chain name of its own (chain:)",
                )
            if existing.rules != rules:
                raise ConfigurationError(
                    f"two plugins feed the chain {name} under different rules ({_describe(existing.rules)}; {_describe(rules)})",
                    remedy="set the same mode, final_depth and orphans for both",
                )
            return existing
        async with self._store_turn:
            mirror = await trio.to_thread.run_sync(partial(self._store.mirror, name, translator=translator, rules=rules))
        pipeline = ChainPipeline(mirror, translator, self.sink, self._store_turn, self._feed.ring)
        self._chains[name] = pipeline
        self.sink.emit(
            EventKind.CHAIN_OPENED,
            f"{name}: {translator.family} {translator.network}".rstrip(),
            chain=name,
            severity=Severity.DEBUG,
            data={
                "family": translator.family,
                "network": translator.network,
                "mode": str(rules.mode),
                "final_depth": rules.final_depth,
            },
        )
        return pipeline

    @property
    def store_turn(self) -> trio.Lock:
        """Held by whoever writes the store, for one transaction."""
        return self._store_turn

    @property
    def plugins(self) -> Mapping[str, PluginStatus]:
        """Every plugin by id, as it is now."""
        return {plugin: supervisor.status() for plugin, supervisor in self._supervisors.items()}

    async def stop(self, plugin: str) -> PluginStatus:
        """Stops one plugin and waits until it is unloaded or abandoned. Raises ConfigurationError for an unknown one."""
        supervisor = self._supervisor(plugin)
        supervisor.stop()
        while not supervisor.status().finished:
            await self._change.wait()
        return supervisor.status()

    def _supervisor(self, plugin: str) -> PluginSupervisor:
        try:
            return self._supervisors[plugin]
        except KeyError:
            known = ", ".join(self._supervisors) or "none"
            raise ConfigurationError(f"no plugin is called {plugin}", remedy=f"known: {known}") from None

    @property
    def supervisors(self) -> Mapping[str, PluginSupervisor]:
        """Those who run the plugins."""
        return self._supervisors

    # ---- remote plugins ------------------------------------------------------------------------------------------------------

    async def remote(self) -> RemoteServer:
        """The gRPC server; started where it does not run yet. Raises OperatorError; HostError where it is not served with the
        libraries that are installed."""
        async with self._remote_turn:
            if self._remote is None:
                # Only a node with remote plugins pays for what this imports; of other versions it might not even be imported.
                try:
                    from supervm_rt.transports.remote.versions import unchecked

                    for line in unchecked():
                        self.sink.emit(EventKind.REMOTE_UNCHECKED, line, severity=Severity.WARNING)
                    from supervm_rt.transports.remote.server import RemoteServer
                except ImportError as error:
                    raise ConfigurationError(
                        f"gRPC needs what is not installed ({error})", remedy="pip install 'supervm-rt[grpc]'"
                    ) from None

                server = RemoteServer(self.config.listen, self.config.remote, RemoteDoor(self))
                # A start that is cancelled waits for the end of what it started, and that is shielded.
                with trio.CancelScope(shield=True):
                    self._remote = await self._servers.start(self._serve, server)
            assert self._remote is not None
        return self._remote

    async def _serve(self, server: RemoteServer, *, task_status: trio.TaskStatus[RemoteServer]) -> None:
        """Whatever cancels the runtime, remote plugins are told to stop over this first: it runs until ``end_serving``."""
        with trio.CancelScope(shield=True) as self._serving:
            await server.run(task_status=task_status)

    def end_serving(self) -> None:
        """Ends the gRPC server."""
        if self._serving is not None:
            self._serving.cancel()

    @property
    def listening(self) -> tuple[str, ...]:
        """Where the gRPC server listens: ``unix:PATH`` or ``HOST:PORT``."""
        return () if self._remote is None else self._remote.listening

    # ---- waiting and asking --------------------------------------------------------------------------------------------------

    async def wait_idle(self) -> None:
        """Waits until every plugin said end of input and all of it is committed, or ended for good."""
        while not all(status.idle or status.finished for status in self.plugins.values()):
            await self._change.wait()

    async def wait_finished(self) -> None:
        """Waits until every plugin ended for good; for ever, where further ones may come over gRPC."""
        while self.config.listen or not all(status.finished for status in self.plugins.values()):
            await self._change.wait()

    @property
    def chains(self) -> Mapping[str, ChainSummary]:
        """Every chain by name: its tip and the counters since the runtime opened."""
        return {name: pipeline.summary for name, pipeline in self._chains.items()}

    # ---- what supervisors need -----------------------------------------------------------------------------------------------

    async def position(self, plugin: str, chain: str) -> bytes | None:
        """The durable position of a plugin on a chain."""
        async with self._store_turn:
            return await trio.to_thread.run_sync(self._store.position, plugin, chain)

    async def network(self, chain: str) -> str:
        """The network of a chain that the store has, whether it is fed now or not. Raises StoreError."""
        async with self._store_turn:
            info = await trio.to_thread.run_sync(lambda: self._store.chain(chain).info())
        return info.network

    def store_failed(self, error: StoreError) -> None:
        """Ends the runtime: nothing can be mirrored without its store."""
        if self.failure is None:
            self.failure = error
            self.sink.emit(EventKind.STORE_FAILED, str(error), severity=Severity.ERROR)
        self._nursery.cancel_scope.cancel()

    def ended(self) -> None:
        """A plugin has ended for good: whoever waits to register in its place is told."""
        if self._remote is not None:
            self._remote.sessions.poke()
        self.changed()

    def changed(self) -> None:
        """Wakes the waiters."""
        self._change.set()
        self._change = trio.Event()


def _describe(rules: ForkRules) -> str:
    return f"{rules.mode}, final depth {rules.final_depth}, {rules.orphan_limit} orphans"


@asynccontextmanager
async def open_runtime(
    config: RuntimeConfig | Path | str, *, receivers: tuple[Receiver, ...] = ()
) -> AsyncGenerator[Runtime, None]:
    """Opens the store, registers the plugins and runs them until the block ends; then stops and unloads them all.

    ``config``: a RuntimeConfig, or the path of a configuration file. ``receivers`` get every event from the first on; to
    query the store meanwhile, open it read-only (``supervm_rt.Store``). Raises ConfigurationError, ManifestError, StoreError,
    HostError on entry; on leaving, the StoreError that ended the runtime, if one did. What goes wrong with a plugin is never
    raised: see ``Runtime.plugins`` and the events.
    """
    if not isinstance(config, RuntimeConfig):
        config = await trio.to_thread.run_sync(RuntimeConfig.load, Path(config))
    sink = EventSink()
    for receiver in receivers:
        sink.add(receiver)
    store = await trio.to_thread.run_sync(partial(Store.open, config.store, max_bytes=config.store_limit))
    runtime: Runtime | None = None
    failed: BaseException | None = None
    try:
        feed = await trio.to_thread.run_sync(partial(Feed.at, store.path, told=True))
        # The server outlives the plugins, which it is needed to end.
        async with trio.open_nursery() as servers:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(feed.run)
                    runtime = Runtime(config, store, feed, sink, nursery=nursery, servers=servers)
                    try:
                        nursery.start_soon(serve_status, runtime, store.path)
                        if config.retention is not None:
                            nursery.start_soon(keep_retention, runtime, store, config.retention)
                        if config.listen:
                            await runtime.remote()
                        for plugin in config.plugins:
                            await runtime.add(plugin)
                        runtime.opened()
                        yield runtime
                    except BaseException as error:  # raised again below, outside the nursery, so that it comes out bare
                        failed = error
                    runtime.close()
                    nursery.cancel_scope.cancel()
            finally:
                if runtime is not None:
                    runtime.end_serving()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(store.close)
    if runtime is not None and runtime.failure is not None:
        raise runtime.failure from (failed if isinstance(failed, Exception) else None)
    if failed is not None:
        raise failed
