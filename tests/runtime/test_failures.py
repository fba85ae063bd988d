"""Every way to end badly: named, cleaned up or abandoned, and no concern of the neighbours (clauses L2, L5, A1 to A4)."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import (
    EventKind,
    PluginConfig,
    PluginState,
    PolicyLevel,
    RestartPolicy,
    Runtime,
)
from supervm_rt._abi import slots_in_use
from supervm_rt.errors import LoadError, PluginError
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import BlockClaims, TranslatedBlock
from supervm_rt.store import Applied, Input, Mirror
from supervm_rt.transports.interface import Received
from supervm_rt.transports.native import in_process
from supervm_rt.transports.native.in_process import InProcessTransport
from supervm_rt.trust.policy import Placement
from tests.runtime.support import ACTOR, BOTH, GOOD_LIFE, QUICK, SHORT, MakePlugin, Node, actor, failure, running


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


@BOTH
def test_a_binary_that_disagrees_with_its_manifest_is_not_initialised(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(version='"2.0.0"'))) as runtime:
            await runtime.wait_finished()
            assert "version is '1.0.0' in the binary and '2.0.0' in the manifest" in failure(runtime)

    trio.run(main)
    assert node.states() == ["loading", "loaded", "unloaded"]


@BOTH
def test_a_capability_that_is_not_in_the_manifest_is_not_granted(node: Node, make_plugin: MakePlugin) -> None:
    folder = make_plugin(capabilities="[submit_tx]")

    async def main() -> None:
        async with node.open(actor(folder)) as runtime:
            await runtime.wait_finished()
            assert "capabilities is ['block_stream'] in the binary and ['submit_tx'] in the manifest" in failure(runtime)

    trio.run(main)


@BOTH
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


@pytest.mark.own_process(abandons=True)
def test_one_that_never_stops_talking_does_not_hold_the_host(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with node.open(actor(make_plugin(), "init-spams")) as runtime:
                await runtime.wait_finished()
                assert "plugin_init answered 7" in failure(runtime)
                assert runtime.plugins[ACTOR].state is PluginState.ABANDONED

    trio.run(main)


@pytest.mark.own_process(abandons=True)
def test_a_thread_that_a_release_left_is_noticed(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "linger")) as runtime:
            await running(runtime)
            status = await runtime.stop(ACTOR)
            assert status.state is PluginState.ABANDONED
            assert "threads behind" in str(status.failure)

    trio.run(main)


@pytest.mark.own_process(abandons=True)
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


@BOTH
def test_start_that_waits_for_stop_is_stopped_while_it_runs(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "start-waits"), deadlines=SHORT) as runtime:
            await runtime.wait_finished()
            assert "plugin_start did not return within 0.5 s" in failure(runtime)

    trio.run(main)
    assert node.states() == [*GOOD_LIFE[:5], "stopping", "stopped", "unloaded"]


@pytest.mark.own_process(abandons=True)
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


@pytest.mark.own_process(abandons=True)
def test_threads_left_behind_are_noticed_and_the_library_stays(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "leave-thread")) as runtime:
            await running(runtime)
            status = await runtime.stop(ACTOR)
            assert status.state is PluginState.ABANDONED
            assert "thread" in str(status.failure)

    trio.run(main)
    assert len(node.of(EventKind.PLUGIN_ABANDONED)) == 1


@BOTH
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


@BOTH
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
    assert [event.data["failures"] for event in node.of(EventKind.PLUGIN_RESTARTING)] == [1, 2]
    assert len(node.of(EventKind.PLUGIN_QUARANTINED)) == 1


@BOTH
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


@BOTH
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
    # What a sandbox is to show of the file system must be known before it is made.
    refused = node.placement is Placement.CHILD and "blocks_dir" in settings
    assert node.states() == (["refused"] if refused else ["loading", "loaded", "unloaded"])


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


def test_after_a_batch_that_was_not_committed_none_is(
    node: Node, make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the host's own, at the head of a flood: what comes after it must not move the position past it."""
    translate = DevTranslator.translate
    opened: list[Runtime] = []

    def more_is_waiting() -> bool:
        ring = opened[0].plugins[ACTOR].ring if opened else None
        return ring is not None and ring.used > 200 * 128

    def stumble(self: DevTranslator, claims: BlockClaims) -> TranslatedBlock:
        if claims.height == 1:
            deadline = time.monotonic() + 20
            while not more_is_waiting():
                assert time.monotonic() < deadline, "the plugin did not publish behind the batch that fails"
                time.sleep(0.001)
            raise RuntimeError("a fault of the translator")
        return translate(self, claims)

    monkeypatch.setattr(DevTranslator, "translate", stumble)
    monkeypatch.setattr(in_process, "MAX_FRAMES", 100)  # so that there is something behind the batch that fails

    async def main() -> None:
        async with node.open(actor(make_plugin(), "flood")) as runtime:
            opened.append(runtime)
            with trio.fail_after(30):
                await runtime.wait_idle()
            assert "its supervision failed" in failure(runtime)

    trio.run(main)
    with supervm_rt.Store.open(node.store, read_only=True) as store:
        assert store.chain("dev").tip() is None
        assert store.position(ACTOR, "dev") is None


def test_a_batch_that_is_ready_is_dropped_where_the_one_before_fails(
    node: Node, make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch is translated while the first is committed, and the first fails: nothing of either is stored."""
    translate, apply = DevTranslator.translate, Mirror.apply
    translating = threading.Condition()
    heights = [0]
    batches: list[int] = []

    def watch(self: DevTranslator, claims: BlockClaims) -> TranslatedBlock:
        with translating:
            heights.append(claims.height or 0)
            translating.notify()
        return translate(self, claims)

    def stumble(self: Mirror, plugin: str, inputs: Sequence[Input]) -> list[Applied]:
        batches.append(len(inputs))
        if len(batches) > 1:
            return apply(self, plugin, inputs)
        with translating:
            assert translating.wait_for(lambda: heights[-1] > len(inputs), 20)
        raise RuntimeError("a fault of the store")

    monkeypatch.setattr(DevTranslator, "translate", watch)
    monkeypatch.setattr(Mirror, "apply", stumble)
    monkeypatch.setattr(in_process, "MAX_FRAMES", 100)

    async def main() -> None:
        async with node.open(actor(make_plugin(), "flood")) as runtime:
            with trio.fail_after(30):
                await runtime.wait_idle()
            assert "a fault of the store" in failure(runtime)

    trio.run(main)
    assert len(batches) == 1
    with supervm_rt.Store.open(node.store, read_only=True) as store:
        assert store.chain("dev").tip() is None
        assert store.position(ACTOR, "dev") is None


@BOTH
def test_too_many_rejected_blocks_quarantine_the_plugin(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "self-parent", restart=RestartPolicy.ALWAYS), rejection_limit=10) as runtime:
            with trio.fail_after(20):
                await runtime.wait_finished()
            assert runtime.plugins[ACTOR].state is PluginState.QUARANTINED
            assert "more than 10" in failure(runtime)

    trio.run(main)
    assert {event.data["reason"] for event in node.of(EventKind.CHAIN_REJECTED)} == {"self-parent"}


@BOTH
def test_a_flood_of_metrics_is_dropped_and_counted(node: Node, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with node.open(actor(make_plugin(), "chatter")) as runtime:
            with trio.fail_after(30):
                await runtime.wait_idle()
            ring = (await runtime.stop(ACTOR)).ring
            assert ring is not None
            counted.append(ring.dropped_messages)

    counted: list[int] = []
    trio.run(main)
    assert node.states() == GOOD_LIFE
    told = sum(int(str(event.data["dropped"])) for event in node.of(EventKind.PLUGIN_DROPPED))
    (dropped,) = counted
    assert 0 < told <= dropped, "a flood of events about it is none either"
    kept = len(node.of(EventKind.PLUGIN_METRIC)) + len(node.of(EventKind.PLUGIN_LOG))
    assert kept + dropped == 200_000 + len(["actor: init", "actor: stopped"])
