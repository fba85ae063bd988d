"""A plugin on grpc-go, made from proto/ by Google's tools: started by the node in the sandbox, and by hand (T3, R4, X2)."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import pytest
import trio

from supervm_rt import EventKind, PluginConfig, PluginState, RestartPolicy, Store
from supervm_rt.store import digest
from tests.remote.support import Served, serving

BUILT = Path(__file__).parents[2] / "build/examples/remote-go"
pytestmark = pytest.mark.nodes


async def until_idle_and_stopped(node: Served) -> None:
    with trio.fail_after(60):
        while not any(status.idle for status in node.runtime.plugins.values()):
            await trio.sleep(0.01)
            assert not any(status.failure for status in node.runtime.plugins.values()), node.runtime.plugins
    (plugin,) = node.runtime.plugins
    status = await node.runtime.stop(plugin)
    assert (status.state, status.failure) == (PluginState.UNLOADED, None)
    assert "all blocks are sent" in [event.message.rpartition(": ")[2] for event in node.seen.of(EventKind.PLUGIN_LOG)]


def test_started_by_the_node_and_by_hand_it_comes_to_the_same(tmp_path: Path) -> None:
    found = {}

    async def by_the_node() -> None:
        plugin = PluginConfig(path=BUILT, restart=RestartPolicy.NEVER)
        async with serving(tmp_path / "launched", plugin) as node:
            await until_idle_and_stopped(node)
            (confined,) = node.seen.of(EventKind.PLUGIN_CONFINED)
            assert "seccomp baseline" in confined.message

    async def by_hand() -> None:
        async with serving(tmp_path / "dialled") as node, trio.open_nursery() as nursery:
            run = partial(trio.run_process, [str(BUILT / "plugin"), f"unix:{node.path}"], check=False, capture_stderr=True)
            process = await nursery.start(run)
            await until_idle_and_stopped(node)
            with trio.fail_after(20):
                assert await process.wait() == 0

    for name, way in (("launched", by_the_node), ("dialled", by_hand)):
        (tmp_path / name).mkdir()
        trio.run(way)
        with Store.open(tmp_path / name / "store.db", read_only=True) as store:
            info = store.chain("dev").info()
            assert info.tip is not None
            assert (info.tip.height, info.tip.hash) == (20, hashlib.sha256(b"block 20").digest())
            found[name] = digest(store, "dev").hex
    assert found["launched"] == found["dialled"]
