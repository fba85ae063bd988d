"""Lives of plugins: good ones, and every way to end badly (clauses D1, L1, L2, L5, A2 to A4, A9)."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
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
from supervm_rt._abi import slots_in_use
from supervm_rt.errors import LoadError, PluginError
from supervm_rt.transports.interface import Received
from supervm_rt.transports.native.in_process import InProcessTransport

MakePlugin = Callable[..., Path]
ACTOR = "org.example.actor"
SHORT = Deadlines(load=10, init=0.5, start=0.5, stop=0.5)
QUICK = RestartLimits(first_delay=0.01, longest_delay=0.02, failures=3, window=60)


class Node:
    """A runtime over a store of its own, whose events are kept."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.events: list[HostEvent] = []

    def open(
        self,
        *plugins: PluginConfig,
        policy: PolicyLevel = PolicyLevel.DEV,
        deadlines: Deadlines | None = None,
        rejection_limit: int = 10_000,
        ring_bytes: int = 1 << 20,
    ) -> AbstractAsyncContextManager[Runtime]:
        config = RuntimeConfig(
            store=self.store,
            plugins=plugins,
            policy=policy,
            deadlines=deadlines or Deadlines(),
            restarts=QUICK,
            rejection_limit=rejection_limit,
            ring_bytes=ring_bytes,
        )
        return supervm_rt.open_runtime(config, receivers=(self.events.append,))

    def of(self, kind: EventKind) -> list[HostEvent]:
        return [event for event in self.events if event.kind is kind]

    def states(self, plugin: str = ACTOR) -> list[str]:
        return [str(event.data["to"]) for event in self.of(EventKind.PLUGIN_STATE) if event.plugin == plugin]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "store.db")


def actor(folder: Path, act: str = "", restart: RestartPolicy | None = None, name: str | None = None) -> PluginConfig:
    return PluginConfig(path=folder, settings={"act": act}, restart=restart, name=name)


def failure(runtime: Runtime, plugin: str = ACTOR) -> str:
    return str(runtime.plugins[plugin].failure)


GOOD_LIFE = ["loading", "loaded", "initialising", "initialised", "starting", "running", "stopping", "stopped", "unloaded"]


def test_a_good_life(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "publish")) as runtime:
            await runtime.wait_idle()
            status = runtime.plugins[ACTOR]
            assert status.state is PluginState.RUNNING
            assert status.generation == 1
            assert status.placement == "in-process"
            assert status.ring is not None
            assert status.ring.frames == 101
        assert runtime.plugins[ACTOR].state is PluginState.UNLOADED
        assert runtime.plugins[ACTOR].failure is None
        summary = runtime.chains["dev"]
        assert summary.blocks == 100
        assert summary.tip is not None
        assert summary.tip.height == 100
        assert summary.reorgs == 0

    trio.run(main)
    assert node.states() == GOOD_LIFE
    assert [event.message for event in node.of(EventKind.PLUGIN_LOG)] == ["actor: init", "actor: stopped"]
    (registered,) = node.of(EventKind.PLUGIN_REGISTERED)
    assert (registered.plugin, registered.generation, registered.chain) == (ACTOR, 1, "dev")
    assert registered.data["ring_bytes"] == 1 << 20
    with supervm_rt.Store.open(node.store, read_only=True) as store:
        assert len(store.events()) == 100


@pytest.mark.parametrize("level", [PolicyLevel.STRICT, PolicyLevel.PERMISSIVE])
def test_policy_refuses_before_any_code_runs(node: Node, make_plugin: MakePlugin, level: PolicyLevel) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin()), policy=level) as runtime:
            await runtime.wait_finished()
            assert runtime.plugins[ACTOR].state is PluginState.REFUSED
            assert "signature" in failure(runtime)
            assert "--policy dev" in failure(runtime)

    trio.run(main)
    assert node.states() == ["refused"]
    (decision,) = node.of(EventKind.POLICY_DECISION)
    assert decision.data["allowed"] is False
    assert decision.data["level"] == level


def test_a_binary_that_disagrees_with_its_manifest_is_not_initialised(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(version='"2.0.0"'))) as runtime:
            await runtime.wait_finished()
            assert "version is '1.0.0' in the binary and '2.0.0' in the manifest" in failure(runtime)

    trio.run(main)
    assert node.states() == ["loading", "loaded", "unloaded"]


def test_a_capability_that_is_not_in_the_manifest_is_not_granted(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin(capabilities="[submit_tx]")

    async def main() -> None:
        async with node.open(actor(folder)) as runtime:
            await runtime.wait_finished()
            assert "capabilities is ['block_stream'] in the binary and ['submit_tx'] in the manifest" in failure(runtime)

    trio.run(main)


@pytest.mark.parametrize(
    ("act", "says", "states"),
    [
        ("init-fails", "plugin_init answered 7", ["loading", "loaded", "initialising", "unloaded"]),
        ("start-fails", "plugin_start answered 8", [*GOOD_LIFE[:5], "stopping", "stopped", "unloaded"]),
        ("stop-fails", "plugin_stop answered 9", GOOD_LIFE),
    ],
)
def test_a_call_that_fails_is_named_and_cleaned_up(
    node: Node, make_plugin: MakePlugin, act: str, says: str, states: list[str]
) -> None:
    before = slots_in_use()

    async def main() -> None:
        async with node.open(actor(make_plugin(), act)) as runtime:
            await (runtime.stop(ACTOR) if act == "stop-fails" and await running(runtime) else runtime.wait_finished())
            assert says in failure(runtime)

    trio.run(main)
    assert node.states() == states
    assert slots_in_use() == before


async def running(runtime: Runtime) -> bool:
    with trio.fail_after(10):
        while runtime.plugins[ACTOR].state is not PluginState.RUNNING:
            await trio.sleep(0.001)
    return True


def test_one_that_asks_for_shutdown_in_init_is_stopped_too(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "init-shutdown")) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert runtime.plugins[ACTOR].failure is None

    trio.run(main)
    assert [event.message for event in node.of(EventKind.PLUGIN_LOG)] == ["actor: init", "actor: stopped"]
    assert node.states()[-1] == "unloaded"


@pytest.mark.own_process
def test_one_that_never_stops_talking_does_not_hold_the_host(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with node.open(actor(make_plugin(), "init-spams")) as runtime:
                await runtime.wait_finished()
                assert "plugin_init answered 7" in failure(runtime)
                assert runtime.plugins[ACTOR].state is PluginState.ABANDONED

    trio.run(main)


def test_what_a_plugin_keeps_for_each_thread_goes_before_its_library(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "publish thread-data")) as runtime:
            await runtime.wait_idle()

    before = slots_in_use()
    trio.run(main)
    assert node.states() == GOOD_LIFE
    assert slots_in_use() == before


@pytest.mark.own_process
def test_a_thread_that_a_release_left_is_noticed(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "linger")) as runtime:
            await running(runtime)
            status = await runtime.stop(ACTOR)
            assert status.state is PluginState.ABANDONED
            assert "threads behind" in str(status.failure)

    trio.run(main)


@pytest.mark.own_process
def test_one_that_takes_every_descriptor_is_named(node: Node, make_plugin: MakePlugin) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    async def main() -> None:
        async with node.open(actor(make_plugin(), "take-descriptors")) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert "plugin_start answered 8" in failure(runtime)
            assert runtime.plugins[ACTOR].state is PluginState.ABANDONED

    trio.run(main)
    (abandoned,) = node.of(EventKind.PLUGIN_ABANDONED)
    assert "cannot be listed" in abandoned.message


def test_start_that_waits_for_stop_is_stopped_while_it_runs(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "start-waits"), deadlines=SHORT) as runtime:
            await runtime.wait_finished()
            assert "plugin_start did not return within 0.5 s" in failure(runtime)

    trio.run(main)
    assert node.states() == [*GOOD_LIFE[:5], "stopping", "stopped", "unloaded"]


@pytest.mark.own_process
@pytest.mark.parametrize(
    ("act", "call"), [("init-hangs", "plugin_init"), ("start-hangs", "plugin_start"), ("stop-hangs", "plugin_stop")]
)
def test_a_call_that_never_returns_is_abandoned_and_the_others_go_on(
    node: Node, make_plugin: MakePlugin, act: str, call: str
) -> None:
    before = slots_in_use()

    async def main() -> None:
        with trio.fail_after(20):
            async with node.open(
                actor(make_plugin(), act),
                PluginConfig(path=make_plugin(), settings={"act": "publish"}, name="neighbour", chain="other"),
                deadlines=SHORT,
            ) as runtime:
                if act == "stop-hangs":
                    await running(runtime)
                    await runtime.stop(ACTOR)
                while not runtime.plugins[ACTOR].finished:
                    await trio.sleep(0.01)
                assert f"{call} did not return within 0.5 s" in failure(runtime)
                assert runtime.plugins[ACTOR].state is PluginState.ABANDONED
                await runtime.wait_idle()
                assert runtime.chains["other"].blocks == 100

    trio.run(main)
    (abandoned,) = node.of(EventKind.PLUGIN_ABANDONED)
    assert abandoned.plugin == ACTOR
    assert slots_in_use() == before + 1
    assert node.states("neighbour") == GOOD_LIFE


@pytest.mark.own_process
def test_threads_left_behind_are_noticed_and_the_library_stays(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "leave-thread")) as runtime:
            await running(runtime)
            status = await runtime.stop(ACTOR)
            assert status.state is PluginState.ABANDONED
            assert "thread" in str(status.failure)

    trio.run(main)
    assert len(node.of(EventKind.PLUGIN_ABANDONED)) == 1


def test_request_for_shutdown_ends_the_plugin_that_asks_and_no_other(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(
            actor(make_plugin(), "publish shutdown", restart=RestartPolicy.ON_FAILURE),
            PluginConfig(path=make_plugin(), settings={"act": "publish"}, name="neighbour", chain="other"),
        ) as runtime:
            with trio.fail_after(20):
                while not runtime.plugins[ACTOR].finished:
                    await trio.sleep(0.001)
                assert runtime.plugins[ACTOR].failure is None
                assert runtime.chains["dev"].blocks == 100, "what was said before the request counts"
                await runtime.wait_idle()
            assert runtime.plugins["neighbour"].state is PluginState.RUNNING

    trio.run(main)
    (request,) = node.of(EventKind.PLUGIN_SHUTDOWN_REQUESTED)
    assert request.data["reason"] == 0
    assert node.states()[-3:] == GOOD_LIFE[-3:]


def test_a_plugin_that_gives_up_has_failed(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "publish gives-up")) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert "gave up (reason 42)" in failure(runtime)
            assert runtime.chains["dev"].blocks == 100

    trio.run(main)
    (request,) = node.of(EventKind.PLUGIN_SHUTDOWN_REQUESTED)
    assert request.data["reason"] == 42


def test_failures_are_restarted_later_each_time_then_quarantined(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "init-fails", restart=RestartPolicy.ON_FAILURE)) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            status = runtime.plugins[ACTOR]
            assert status.state is PluginState.QUARANTINED
            assert status.generation == QUICK.failures

    trio.run(main)
    assert [event.generation for event in node.of(EventKind.PLUGIN_REGISTERED)] == [1, 2, 3]
    assert len(node.of(EventKind.PLUGIN_RESTARTING)) == 2
    assert len(node.of(EventKind.PLUGIN_QUARANTINED)) == 1


def test_always_restarts_a_plugin_that_ended_well(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "shutdown", restart=RestartPolicy.ALWAYS)) as runtime:
            with trio.fail_after(20):
                while runtime.plugins[ACTOR].generation < 4:
                    await trio.sleep(0.001)
            assert runtime.plugins[ACTOR].state is not PluginState.QUARANTINED

    trio.run(main)
    assert node.of(EventKind.PLUGIN_FAILED) == []


def test_a_silent_plugin_is_detected_stopped_and_restarted(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin(heartbeat="200ms")

    async def main() -> None:
        async with node.open(actor(folder, "silent", restart=RestartPolicy.ON_FAILURE)) as runtime:
            with trio.fail_after(20):
                while runtime.plugins[ACTOR].generation < 2:
                    await trio.sleep(0.01)

    trio.run(main)
    silent = node.of(EventKind.PLUGIN_SILENT)[0]
    assert silent.generation == 1
    assert node.states()[:9] == GOOD_LIFE
    assert "no sign of life" in node.of(EventKind.PLUGIN_FAILED)[0].message


def test_a_beating_plugin_lives_on(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin(heartbeat="200ms")

    async def main() -> None:
        async with node.open(actor(folder, "heartbeat beats")) as runtime:
            await running(runtime)
            await trio.sleep(1)
            assert runtime.plugins[ACTOR].state is PluginState.RUNNING

    trio.run(main)
    assert node.of(EventKind.PLUGIN_SILENT) == []


def test_two_instances_of_one_plugin_have_lives_of_their_own(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def main() -> None:
        one = PluginConfig(path=folder, settings={"act": "publish"}, name="one", chain="first")
        two = PluginConfig(path=folder, settings={"act": ""}, name="two", chain="second")
        async with node.open(one, two) as runtime:
            with trio.fail_after(20):
                while not runtime.plugins["one"].idle or runtime.plugins["two"].state is not PluginState.RUNNING:
                    await trio.sleep(0.001)
            assert runtime.chains["first"].blocks == 100
            assert runtime.chains["second"].blocks == 0
            await runtime.stop("one")
            assert runtime.plugins["two"].state is PluginState.RUNNING

    trio.run(main)


@pytest.mark.parametrize("source", ["unresolved.c", "incomplete.c", "unique.cpp"])
def test_a_library_that_cannot_be_loaded_ends_its_own_plugin_only(
    node: Node, make_plugin: MakePlugin, tmp_path: Path, source: str
) -> None:
    broken = make_plugin()
    library = broken / "plugin.so"
    compiler = "g++" if source.endswith("pp") else "cc"
    path = Path(__file__).parents[1] / "abi/plugins" / source
    subprocess.run([compiler, "-shared", "-fPIC", f"-I{supervm_rt.get_include()}", "-o", library, path], check=True, cwd=tmp_path)

    async def main() -> None:
        neighbour = PluginConfig(path=make_plugin(), settings={"act": "publish"}, name="neighbour", chain="other")
        async with node.open(actor(broken, restart=RestartPolicy.ALWAYS), neighbour) as runtime:
            with trio.fail_after(20):
                await runtime.wait_idle()
            assert runtime.plugins[ACTOR].finished
            assert isinstance(runtime.plugins[ACTOR].failure, LoadError)
            assert "plugin.so" in failure(runtime) or ACTOR in failure(runtime)
            assert runtime.chains["other"].blocks == 100

    trio.run(main)


@pytest.mark.parametrize("settings", [{"blocks_dir": "~nobody-of-that-name/x"}, {"number": float("nan")}, {"thing": object()}])
def test_settings_that_cannot_be_handed_over_end_the_plugin_only(
    node: Node, make_plugin: MakePlugin, settings: dict[str, object]
) -> None:
    folder = make_plugin(security="{sandbox: false, read_paths: [blocks_dir]}")

    async def main() -> None:
        neighbour = PluginConfig(path=make_plugin(), settings={"act": "publish"}, name="neighbour", chain="other")
        async with node.open(PluginConfig(path=folder, settings=settings), neighbour) as runtime:
            with trio.fail_after(20):
                await runtime.wait_idle()
            assert "the settings cannot be handed over" in failure(runtime)
            assert runtime.chains["other"].blocks == 100

    trio.run(main)
    assert node.states() == ["loading", "loaded", "unloaded"]


def test_a_ring_that_holds_nonsense_ends_the_plugin_only(
    node: Node, make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking = InProcessTransport.receive_rest

    def nonsense(self: InProcessTransport) -> Received:
        received = taking(self)
        if self._name == ACTOR and received.frames:
            raise PluginError("corrupt ring")
        return received

    monkeypatch.setattr(InProcessTransport, "receive_rest", nonsense)

    async def main() -> None:
        neighbour = PluginConfig(path=make_plugin(), settings={"act": "publish"}, name="neighbour", chain="other")
        async with node.open(actor(make_plugin(), "flood"), neighbour) as runtime:
            with trio.fail_after(20):
                await runtime.wait_idle()
            assert failure(runtime) == "corrupt ring"
            assert runtime.plugins[ACTOR].state is PluginState.UNLOADED
            assert runtime.chains["other"].blocks == 100

    trio.run(main)


def test_plugins_that_are_added_at_once_do_not_disturb_each_other(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def main() -> None:
        async with node.open() as runtime:
            async with trio.open_nursery() as nursery:
                for name in ("one", "two", "three"):
                    nursery.start_soon(runtime.add, actor(folder, "publish", name=name))
            with trio.fail_after(20):
                await runtime.wait_idle()
            assert runtime.chains["dev"].blocks == 100
            assert runtime.chains["dev"].duplicates == 200

    trio.run(main)


def test_two_plugins_of_one_chain_agree_on_its_rules(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        one = PluginConfig(path=make_plugin(), name="one", final_depth=3)
        async with node.open(one, PluginConfig(path=make_plugin(), name="two")):
            pytest.fail("opened")

    with pytest.raises(supervm_rt.SuperVMError, match="two plugins feed the chain dev under different rules"):
        trio.run(main)


def test_one_that_has_finished_can_be_added_again(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def main() -> None:
        async with node.open(actor(folder)) as runtime:
            await running(runtime)
            await runtime.stop(ACTOR)
            await runtime.add(actor(folder, "publish"))
            with trio.fail_after(20):
                await runtime.wait_idle()
            assert runtime.chains["dev"].blocks == 100
        with pytest.raises(supervm_rt.SuperVMError, match="the runtime has ended"):
            await runtime.add(actor(folder))

    trio.run(main)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_a_length_of_time(seconds: float) -> None:
    with pytest.raises(supervm_rt.SuperVMError, match="the deadline of stop"):
        Deadlines(stop=seconds)


def test_two_plugins_of_one_name_are_refused(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin()), actor(make_plugin())):
            pytest.fail("opened")

    with pytest.raises(supervm_rt.SuperVMError, match="two plugins are called org.example.actor"):
        trio.run(main)


def test_a_restarted_runtime_goes_on_where_it_stopped(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def mirror() -> supervm_rt.ChainSummary:
        async with node.open(actor(folder, "publish")) as runtime:
            await runtime.wait_idle()
        return runtime.chains["dev"]

    assert trio.run(mirror).blocks == 100
    again = trio.run(mirror)
    assert again.blocks == 0
    assert again.duplicates == 100
    assert again.tip is not None
    assert again.tip.height == 100


def test_too_many_rejected_blocks_quarantine_the_plugin(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "self-parent", restart=RestartPolicy.ALWAYS), rejection_limit=10) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert runtime.plugins[ACTOR].state is PluginState.QUARANTINED
            assert "more than 10" in failure(runtime)

    trio.run(main)
    assert {event.data["reason"] for event in node.of(EventKind.CHAIN_REJECTED)} == {"self-parent"}


def test_a_flood_of_metrics_is_dropped_and_counted(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "chatter")) as runtime:
            with trio.fail_after(30):
                while not node.of(EventKind.PLUGIN_METRIC):
                    await trio.sleep(0.01)
            await runtime.stop(ACTOR)

    trio.run(main)
    assert node.states() == GOOD_LIFE
    dropped = sum(int(str(event.data["dropped"])) for event in node.of(EventKind.PLUGIN_DROPPED))
    assert len(node.of(EventKind.PLUGIN_METRIC)) + dropped <= 200_000 + len(["actor: init", "actor: stopped"])


@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.002, 0.005, 0.02, 0.1])
@pytest.mark.parametrize("act", ["publish", "flood"])
def test_cancelling_at_any_moment_leaves_nothing_behind(node: Node, make_plugin: MakePlugin, act: str, delay: float) -> None:
    folder = make_plugin()
    before = leftovers()

    async def main() -> None:
        with trio.move_on_after(delay):
            async with node.open(actor(folder, act), ring_bytes=1 << 16):
                await trio.sleep_forever()

    trio.run(main)
    assert leftovers() == before
    with supervm_rt.Store.open(node.store) as store:
        events = store.events(limit=1_000_000)
    assert [event.block.height for event in events] == list(range(1, len(events) + 1))


def leftovers() -> dict[str, int]:
    """What a plugin could leave in this process, counted: abandoned ones of other tests are there before and after."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            links.append(str(link.readlink()))
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            names.append((task / "comm").read_text())
    return {
        "slots": slots_in_use(),
        "mappings": Path("/proc/self/maps").read_text().count("memfd"),
        "descriptors": sum("memfd" in link or "eventfd" in link for link in links),
        "threads": sum(name.startswith("svm-") for name in names),
    }
