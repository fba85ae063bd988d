"""The remote plugins in Python do what the native ones do (clauses T3, G2)."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from supervm_rt import PluginConfig, PluginState, Store
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.store import digest
from tests.remote.support import serving
from tests.transports.kinds import mirrored

EXAMPLES = Path(__file__).parents[2] / "examples" / "remote"


def run_example(folder: Path, script: str, *plugins: PluginConfig, chain: str) -> str:
    async def main() -> None:
        async with serving(folder, *plugins) as node, trio.open_nursery() as nursery:
            command = [sys.executable, "-W", "error", str(EXAMPLES / script), f"unix:{node.path}"]
            process = await nursery.start(partial(trio.run_process, command, check=False))
            with trio.fail_after(60):
                while not any(status.idle for status in node.runtime.plugins.values()):
                    await trio.sleep(0.01)
                (plugin,) = node.runtime.plugins
                status = await node.runtime.stop(plugin)
                assert (status.state, status.failure) == (PluginState.UNLOADED, None)
                assert await process.wait() == 0

    trio.run(main)
    with Store.open(folder / "store.db", read_only=True) as store:
        return digest(store, chain).hex


def test_block_files_come_to_the_same_digest(tmp_path: Path) -> None:
    settings = {"blocks_dir": str(SAMPLE_CHAIN / "blocks"), "network": "regtest"}
    plugin = PluginConfig(path=EXAMPLES, settings=settings)
    assert run_example(tmp_path, "blockfiles.py", plugin, chain="bitcoin") == mirrored(
        "child", tmp_path / "native.db", SAMPLE_CHAIN / "blocks"
    )


def test_ten_blocks(tmp_path: Path) -> None:
    run_example(tmp_path, "ten_blocks.py", chain="dev")
    with Store.open(tmp_path / "store.db", read_only=True) as store:
        tip = store.chain("dev").info().tip
        assert tip is not None
        assert tip.height == 10


def test_they_are_as_short_as_is_said() -> None:
    for script in ("blockfiles.py", "ten_blocks.py"):
        lines = (EXAMPLES / script).read_text().split('"""', 2)[2].splitlines()
        assert sum(bool(line.strip()) for line in lines) < 40, script


def test_the_kit_leaves_asyncio_as_it_is() -> None:
    """trio-asyncio takes over how asyncio makes its loops: a plugin on asyncio must not import it."""
    program = "import sys, supervm_rt.sdk; sys.exit('trio_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
