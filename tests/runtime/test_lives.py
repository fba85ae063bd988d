"""Lives of plugins as they should be, and what outlives them (clauses D1, L1, L5, A9)."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import (
    Deadlines,
    EventKind,
    PluginConfig,
    PluginState,
    RestartPolicy,
)
from supervm_rt._abi import slots_in_use
from tests.runtime.support import ACTOR, BOTH, GOOD_LIFE, MakePlugin, Node, actor, running


@BOTH
def test_a_good_life(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "publish")) as runtime:
            await runtime.wait_idle()
            status = runtime.plugins[ACTOR]
            assert status.state is PluginState.RUNNING
            assert status.generation == 1
            assert status.placement == node.placement
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


@BOTH
def test_one_that_asks_for_shutdown_in_init_is_stopped_too(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "init-shutdown")) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert runtime.plugins[ACTOR].failure is None

    trio.run(main)
    assert [event.message for event in node.of(EventKind.PLUGIN_LOG)] == ["actor: init", "actor: stopped"]
    assert node.states()[-1] == "unloaded"


@BOTH
def test_what_a_plugin_keeps_for_each_thread_goes_before_its_library(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "publish thread-data")) as runtime:
            await runtime.wait_idle()

    before = slots_in_use()
    trio.run(main)
    assert node.states() == GOOD_LIFE
    assert slots_in_use() == before


@BOTH
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


@BOTH
def test_always_restarts_a_plugin_that_ended_well(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "shutdown", restart=RestartPolicy.ALWAYS)) as runtime:
            with trio.fail_after(20):
                while runtime.plugins[ACTOR].generation < 4:
                    await trio.sleep(0.001)
            assert runtime.plugins[ACTOR].state is not PluginState.QUARANTINED

    trio.run(main)
    assert node.of(EventKind.PLUGIN_FAILED) == []


@BOTH
def test_a_beating_plugin_lives_on(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin(heartbeat="200ms")

    async def main() -> None:
        async with node.open(actor(folder, "heartbeat beats")) as runtime:
            await running(runtime)
            await trio.sleep(1)
            assert runtime.plugins[ACTOR].state is PluginState.RUNNING

    trio.run(main)
    assert node.of(EventKind.PLUGIN_SILENT) == []


@BOTH
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


@BOTH
def test_plugins_that_are_added_at_once_do_not_disturb_each_other(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def main() -> None:
        async with node.open() as runtime:
            async with trio.open_nursery() as nursery:
                for name in ("one", "two", "three"):
                    nursery.start_soon(runtime.add, replace(actor(folder, "publish", name=name), placement=node.placement))
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


@BOTH
def test_one_that_has_finished_can_be_added_again(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin()

    async def main() -> None:
        async with node.open(actor(folder)) as runtime:
            await running(runtime)
            await runtime.stop(ACTOR)
            await runtime.add(replace(actor(folder, "publish"), placement=node.placement))
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


@BOTH
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


@BOTH
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
