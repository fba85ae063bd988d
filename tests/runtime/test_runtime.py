"""The runtime as a whole: its store, its events, and how it is opened (clauses D1, D5)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import supervm_rt
from supervm_rt import EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RuntimeConfig
from supervm_rt.errors import ConfigurationError, ManifestError, StoreFull, StoreLocked
from supervm_rt.runtime.lifecycle import ENDED, TRANSITIONS
from supervm_rt.trust.policy import Placement
from tests.runtime.support import IN_CHILD

MakePlugin = Callable[..., Path]


def config(store: Path, *plugins: PluginConfig) -> RuntimeConfig:
    return RuntimeConfig(store=store, plugins=plugins, policy=PolicyLevel.DEV, ring_bytes=1 << 20)


def publishing(folder: Path, act: str = "publish") -> PluginConfig:
    return PluginConfig(path=folder, settings={"act": act})


def test_the_table_of_states_has_no_dead_end_but_the_ends() -> None:
    assert set(TRANSITIONS) == set(PluginState)
    reached = {PluginState.REGISTERED}
    while True:
        more = reached.union(*(TRANSITIONS[state] for state in reached))
        if more == reached:
            break
        reached = more
    assert reached == set(PluginState)
    assert {state for state, ways in TRANSITIONS.items() if not ways} <= ENDED


def test_opened_from_a_file_with_paths_beside_it(tmp_path: Path, make_plugin: MakePlugin) -> None:
    make_plugin().rename(tmp_path / "actor")
    (tmp_path / "node.yaml").write_text("store: node.db\npolicy: dev\nplugins:\n  - path: actor\n    settings: {act: publish}\n")

    async def main() -> None:
        async with supervm_rt.open_runtime(tmp_path / "node.yaml") as runtime:
            await runtime.wait_idle()
            assert runtime.chains["dev"].blocks == 100

    trio.run(main)
    assert (tmp_path / "node.db").exists()


def test_a_plugin_that_is_added_later_and_stopped_again(tmp_path: Path, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with supervm_rt.open_runtime(config(tmp_path / "store.db")) as runtime:
            assert dict(runtime.plugins) == {}
            await runtime.wait_idle()
            plugin = await runtime.add(publishing(make_plugin()))
            await runtime.wait_idle()
            assert runtime.chains["dev"].blocks == 100
            status = await runtime.stop(plugin)
            assert status.state is PluginState.UNLOADED
            with pytest.raises(ConfigurationError, match=f"no plugin is called nobody: known: {plugin}"):
                await runtime.stop("nobody")

    trio.run(main)


def test_what_is_raised_inside_comes_out_as_it_is(tmp_path: Path, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with supervm_rt.open_runtime(config(tmp_path / "store.db", publishing(make_plugin(), "flood"))):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trio.run(main)


def test_a_second_runtime_on_a_store_is_refused(tmp_path: Path, make_plugin: MakePlugin) -> None:
    store = tmp_path / "store.db"

    async def main() -> None:
        async with supervm_rt.open_runtime(config(store, publishing(make_plugin()))) as runtime:
            with pytest.raises(StoreLocked, match=str(os.getpid())):
                async with supervm_rt.open_runtime(config(store)):
                    pytest.fail("opened")
            program = f"import supervm_rt; supervm_rt.Store.open({str(store)!r})"
            done = await trio.run_process([sys.executable, "-c", program], capture_stderr=True, check=False)
            assert done.returncode != 0
            assert b"StoreLocked" in done.stderr
            await runtime.wait_idle()

    trio.run(main)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    return folder


def test_a_full_disk_ends_the_runtime_in_good_order(small_disk: Path, make_plugin: MakePlugin) -> None:
    events: list[HostEvent] = []

    async def main() -> None:
        with trio.fail_after(60):
            async with supervm_rt.open_runtime(
                config(small_disk / "store.db", publishing(make_plugin(), "flood")), receivers=(events.append,)
            ):
                await trio.sleep_forever()

    try:
        with pytest.raises(StoreFull):
            trio.run(main)
        assert [str(event.data["to"]) for event in events if event.kind is EventKind.PLUGIN_STATE][-1] == "unloaded"
        assert len([event for event in events if event.kind is EventKind.STORE_FAILED]) == 1
        with supervm_rt.Store.open(small_disk / "store.db", read_only=True) as store:
            heights = [event.block.height for event in store.events(limit=1_000_000)]
        assert heights == list(range(1, len(heights) + 1))
    finally:
        subprocess.run(["umount", small_disk], check=True)


@pytest.mark.parametrize("act", ["flood", "flood hand-over"])
def test_a_store_that_reached_its_limit_ends_the_runtime_too(tmp_path: Path, make_plugin: MakePlugin, act: str) -> None:
    """Handed over, payloads stay in the plugin's memory: the batch that was not stored must not keep the plugin from going."""
    events: list[HostEvent] = []

    async def main() -> None:
        of = replace(config(tmp_path / "store.db", publishing(make_plugin(), act)), store_limit=1 << 20)
        with trio.fail_after(60):
            async with supervm_rt.open_runtime(of, receivers=(events.append,)):
                await trio.sleep_forever()

    with pytest.raises(StoreFull):
        trio.run(main)
    assert [str(event.data["to"]) for event in events if event.kind is EventKind.PLUGIN_STATE][-1] == "unloaded"
    assert (tmp_path / "store.db").stat().st_size <= 1 << 20


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    async def open_it(of: RuntimeConfig) -> None:
        async with supervm_rt.open_runtime(of):
            pytest.fail("opened")

    with pytest.raises(ManifestError, match=r"nowhere/plugin.yaml: no such file"):
        trio.run(open_it, config(tmp_path / "store.db", PluginConfig(path=tmp_path / "nowhere")))
    with pytest.raises(supervm_rt.SuperVMError, match=str(tmp_path)):
        trio.run(open_it, config(tmp_path))


def test_a_chain_without_a_translator_is_refused(tmp_path: Path, make_plugin: MakePlugin) -> None:
    async def main() -> None:
        async with supervm_rt.open_runtime(config(tmp_path / "store.db", publishing(make_plugin(chain="dogecoin")))):
            pytest.fail("opened")

    with pytest.raises(ConfigurationError, match="dogecoin"):
        trio.run(main)


def test_a_receiver_that_fails_is_taken_off_and_harms_nobody(
    tmp_path: Path, make_plugin: MakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    good: list[HostEvent] = []

    def bad(event: HostEvent) -> None:
        raise RuntimeError("receiver")

    async def main() -> None:
        receivers = (bad, good.append)
        async with supervm_rt.open_runtime(config(tmp_path / "s.db", publishing(make_plugin())), receivers=receivers) as runtime:
            await runtime.wait_idle()
            assert runtime.sink.statistics().failed_receivers == 1
            assert list(runtime.sink.recent) == good

    trio.run(main)
    assert good
    assert "taken off" in caplog.text


@pytest.mark.parametrize("placement", [Placement.IN_PROCESS, IN_CHILD], ids=str)
def test_a_plugin_that_knows_only_the_specification(tmp_path: Path, make_plugin: MakePlugin, placement: Placement) -> None:
    """It can log, report and submit; it never says end of input, and is not killed for being quiet."""
    folder = make_plugin(
        "quiet_v0", id="org.example.v0", name="quiet", version="0.1.0", chain="bitcoin", capabilities="[submit_tx]"
    )
    events: list[HostEvent] = []

    async def main() -> None:
        of = config(tmp_path / "store.db", PluginConfig(path=folder, placement=placement))
        async with supervm_rt.open_runtime(of, receivers=(events.append,)) as runtime:
            await runtime.wait_idle()
            assert runtime.plugins["org.example.v0"].state is PluginState.RUNNING
            assert dict(runtime.chains) == {}
        assert runtime.plugins["org.example.v0"].failure is None

    trio.run(main)
    logged = [event.message for event in events if event.kind is EventKind.PLUGIN_LOG]
    assert logged == ["quiet: init", "quiet: submit answered -5"], "no plugin serves the chain yet"
    (metric,) = [event for event in events if event.kind is EventKind.PLUGIN_METRIC]
    assert metric.data == {"name": "answer", "value": 42.0}
