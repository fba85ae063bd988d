"""``python -m tests.misbehaving.victim PLUGIN NEIGHBOUR STORE``: a host whose process a plugin is about to end, or to hold.

The neighbour's blocks are committed before the plugin is loaded. The last line that is printed says as JSON what became of the
plugin, where the host outlived it; the process then ends with status 0, as the command line would.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import trio

import supervm_rt
from supervm_rt import Deadlines, PluginConfig, PluginState, PolicyLevel, RuntimeConfig
from tests.misbehaving.support import PLUGIN, SHORT, mirrors_all, neighbour

COMMITTED = "the neighbour's blocks are committed"


async def main(plugin: Path, other: Path, store: Path) -> None:
    """Runs both; ends when the plugin has ended or was stopped."""
    deadlines = Deadlines(load=SHORT.load, stop=SHORT.stop)
    config = RuntimeConfig(store=store, plugins=(neighbour(other, "neighbour"),), policy=PolicyLevel.DEV, deadlines=deadlines)
    async with supervm_rt.open_runtime(config) as runtime:
        await mirrors_all(runtime, "neighbour")
        print(COMMITTED, flush=True)
        await runtime.add(PluginConfig(path=plugin))
        with trio.move_on_after(10):
            while not runtime.plugins[PLUGIN].finished and runtime.plugins[PLUGIN].state is not PluginState.RUNNING:
                await trio.sleep(0.01)
        status = await runtime.stop(PLUGIN)
        beside = runtime.plugins["neighbour"].state
    failure = status.failure
    print(json.dumps([status.state, str(failure or ""), failure.blame if failure else "", beside]), flush=True)


if __name__ == "__main__":
    plugin, other, store = map(Path, sys.argv[1:])
    trio.run(main, plugin, other, store)
    os._exit(0)
