"""A node of its own: runs plugins, one for each act, and prints what it saw. Run as root or as an ordinary user.

``python -m tests.sandbox.host_process FOLDER STORE SETTINGS-JSON STOP-SECONDS INIT-SECONDS SETTLE-SECONDS ACT...``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

import supervm_rt
from supervm_rt import Deadlines, EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartPolicy, RuntimeConfig
from supervm_rt.transports.native.child.host import machine


async def observe(
    folder: Path, store: Path, settings: dict[str, object], deadlines: Deadlines, settle: float, acts: list[str]
) -> dict[str, Any]:
    """What became of each act: its log lines, why it failed, its state, what it was confined by."""
    seen: dict[str, dict[str, Any]] = {
        act: {"log": [], "failures": [], "causes": [], "events": [], "exhausted": [], "confined": None} for act in acts
    }

    def watch(event: HostEvent) -> None:
        if event.plugin not in seen:
            return
        entry = seen[event.plugin]
        if event.kind is EventKind.PLUGIN_LOG:
            entry["log"] += [event.message[:200]] if len(entry["log"]) < 100 else []
        elif event.kind is EventKind.PLUGIN_FAILED:
            entry["failures"].append(event.message)
            entry["causes"].append(event.data["cause"])
        elif event.kind is EventKind.PLUGIN_CONFINED:
            entry["confined"] = dict(event.data)
        elif event.kind is EventKind.PLUGIN_QUOTA:
            entry["exhausted"].append(event.data["resource"])
        elif event.kind is EventKind.PLUGIN_QUARANTINED:
            entry["events"].append(str(event.kind))

    config = RuntimeConfig(
        store=store,
        policy=PolicyLevel.DEV,
        ring_bytes=1 << 16,
        deadlines=deadlines,
        plugins=tuple(
            PluginConfig(path=folder, name=act, restart=RestartPolicy.NEVER, settings={**settings, "act": act}) for act in acts
        ),
    )
    async with supervm_rt.open_runtime(config, receivers=(watch,)) as runtime:
        with trio.fail_after(100):
            for act in acts:
                while not runtime.plugins[act].finished and runtime.plugins[act].state is not PluginState.RUNNING:
                    await trio.sleep(0.005)
        await trio.sleep(settle)  # what a plugin did after it was started has been seen
    for act, status in runtime.plugins.items():
        seen[act]["state"] = str(status.state)
    return {"acts": seen, "degraded": machine().bubblewrap is None}


def main() -> None:
    folder, store, settings, stop, init, settle, *acts = sys.argv[1:]
    deadlines = Deadlines(load=60, init=float(init), start=float(init), stop=float(stop))
    print(json.dumps(trio.run(observe, Path(folder), Path(store), json.loads(settings), deadlines, float(settle), acts)))


if __name__ == "__main__":
    main()
