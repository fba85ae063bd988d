"""A node of its own: runs plugins, one for each act, and prints what it saw. Run as root or as an ordinary user.

``python -m tests.sandbox.host_process FOLDER STORE OPTIONS-JSON ACT...``; the options are the fields of ``Options``. Where FOLDER
has a folder ACT, that is the plugin, and does nothing once it was started.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    RuntimeConfig,
)
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.native.child.host import machine
from supervm_rt.trust.policy import Policy


@dataclass(frozen=True)
class Verified(Policy):
    """Decides as it will once signatures can be verified, about plugins whose signatures were."""

    def _is_verified(self, manifest: Manifest, binary_sha256: bytes) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Options:
    """How the node is set up."""

    settings: dict[str, object]
    stop: float
    """Seconds that plugin_stop may take."""
    init: float
    """The same for plugin_init and plugin_start."""
    settle: float
    """Seconds for which plugins are watched once they were started."""
    level: PolicyLevel
    restart: RestartPolicy


QUICK = RestartLimits(first_delay=0.01, longest_delay=0.02, failures=3, window=300)


def nothing_seen() -> dict[str, Any]:
    return {
        "log": [],
        "lines": 0,
        "metrics": 0,
        "dropped": [],
        "failures": [],
        "causes": [],
        "restarts": [],
        "exhausted": [],
        "confined": None,
        "decision": "",
    }


async def observe(folder: Path, store: Path, options: Options, acts: list[str]) -> dict[str, Any]:
    """What became of each act: what it said, why it failed, its state, what it was confined by.

    ``log``: the first 100 lines; ``lines``, ``metrics``: how many came; ``dropped``: the counts of the events, and ``uncounted``
    what the ring's own counter has beside.
    """
    seen = {act: nothing_seen() for act in acts}

    def watch(event: HostEvent) -> None:
        if event.plugin not in seen:
            return
        entry = seen[event.plugin]
        if event.kind is EventKind.PLUGIN_LOG:
            entry["lines"] += 1
            entry["log"] += [event.message[:200]] if len(entry["log"]) < 100 else []
        elif event.kind is EventKind.PLUGIN_METRIC:
            entry["metrics"] += 1
        elif event.kind is EventKind.PLUGIN_DROPPED:
            entry["dropped"].append(event.data["dropped"])
        elif event.kind is EventKind.PLUGIN_RESTARTING:
            entry["restarts"].append(event.data["failures"])
        elif event.kind is EventKind.PLUGIN_FAILED:
            entry["failures"].append(event.message)
            entry["causes"].append(event.data["cause"])
        elif event.kind is EventKind.PLUGIN_CONFINED:
            entry["confined"] = dict(event.data)
        elif event.kind is EventKind.PLUGIN_QUOTA:
            entry["exhausted"].append(event.data["resource"])
        elif event.kind is EventKind.POLICY_DECISION:
            entry["decision"] += event.message

    config = RuntimeConfig(
        store=store,
        policy=options.level,
        ring_bytes=1 << 16,
        deadlines=Deadlines(load=60, init=options.init, start=options.init, stop=options.stop),
        restarts=QUICK,
        plugins=(),
    )
    async with supervm_rt.open_runtime(config, receivers=(watch,)) as runtime:
        if options.level is not PolicyLevel.DEV:
            runtime.policy = Verified(options.level)
        for act in acts:
            path, does = (folder / act, "nothing") if (folder / act).is_dir() else (folder, act)
            settings = {**options.settings, "act": does}
            await runtime.add(PluginConfig(path=path, name=act, restart=options.restart, settings=settings))
        with trio.fail_after(100):
            for act in acts:
                while not runtime.plugins[act].finished and runtime.plugins[act].state is not PluginState.RUNNING:
                    await trio.sleep(0.005)
        await trio.sleep(options.settle)  # what a plugin did after it was started has been seen
    for act, status in runtime.plugins.items():
        told = sum(seen[act]["dropped"])
        uncounted = status.ring.dropped_messages - told if status.ring is not None else 0
        seen[act] |= {"state": str(status.state), "placement": status.placement, "generation": status.generation}
        seen[act]["uncounted"] = uncounted
    return {"acts": seen, "degraded": machine().bubblewrap is None}


def main() -> None:
    folder, store, options, *acts = sys.argv[1:]
    fields = json.loads(options)
    fields |= {"level": PolicyLevel(fields["level"]), "restart": RestartPolicy(fields["restart"])}
    print(json.dumps(trio.run(observe, Path(folder), Path(store), Options(**fields), acts)))


if __name__ == "__main__":
    main()
