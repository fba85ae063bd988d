"""A node of its own: runs plugins, one for each act, and prints what it saw. Run as root or as an ordinary user.

``python -m tests.sandbox.host_process FOLDER STORE SETTINGS-JSON STOP-SECONDS INIT-SECONDS SETTLE-SECONDS LEVEL ACT...``
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

import supervm_rt
from supervm_rt import Deadlines, EventKind, HostEvent, PluginConfig, PluginState, PolicyLevel, RestartPolicy, RuntimeConfig
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.native.child.host import machine
from supervm_rt.trust.policy import Policy


@dataclass(frozen=True)
class Verified(Policy):
    """Decides as it will once signatures can be verified, about plugins whose signatures were."""

    def _is_verified(self, manifest: Manifest, binary_sha256: bytes) -> bool:
        return True


async def observe(
    folder: Path,
    store: Path,
    settings: dict[str, object],
    deadlines: Deadlines,
    settle: float,
    level: PolicyLevel,
    acts: list[str],
) -> dict[str, Any]:
    """What became of each act: its log lines, why it failed, its state, what it was confined by."""
    seen: dict[str, dict[str, Any]] = {
        act: {"log": [], "failures": [], "causes": [], "events": [], "exhausted": [], "confined": None, "decision": ""}
        for act in acts
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
        elif event.kind is EventKind.POLICY_DECISION:
            entry["decision"] += event.message
        elif event.kind is EventKind.PLUGIN_QUARANTINED:
            entry["events"].append(str(event.kind))

    config = RuntimeConfig(
        store=store,
        policy=level,
        ring_bytes=1 << 16,
        deadlines=deadlines,
        plugins=(),
    )
    async with supervm_rt.open_runtime(config, receivers=(watch,)) as runtime:
        if level is not PolicyLevel.DEV:
            runtime.policy = Verified(level)
        for act in acts:
            settings_of_act = {**settings, "act": act}
            await runtime.add(PluginConfig(path=folder, name=act, restart=RestartPolicy.NEVER, settings=settings_of_act))
        with trio.fail_after(100):
            for act in acts:
                while not runtime.plugins[act].finished and runtime.plugins[act].state is not PluginState.RUNNING:
                    await trio.sleep(0.005)
        await trio.sleep(settle)  # what a plugin did after it was started has been seen
    for act, status in runtime.plugins.items():
        seen[act] |= {"state": str(status.state), "placement": status.placement}
    return {"acts": seen, "degraded": machine().bubblewrap is None}


def main() -> None:
    folder, store, settings, stop, init, settle, level, *acts = sys.argv[1:]
    deadlines = Deadlines(load=60, init=float(init), start=float(init), stop=float(stop))
    plan = (Path(folder), Path(store), json.loads(settings), deadlines, float(settle), PolicyLevel(level), acts)
    print(json.dumps(trio.run(observe, *plan)))


if __name__ == "__main__":
    main()
