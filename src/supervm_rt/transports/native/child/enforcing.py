"""What enforces each limit of a manifest on this machine, and the refusal where that is not enough (clauses P2, P3)."""

from __future__ import annotations

from supervm_rt.errors import PolicyRefused
from supervm_rt.model.manifest import Resources
from supervm_rt.transports.interface import Confinement
from supervm_rt.transports.native.child.cgroups import Group, Quotas
from supervm_rt.transports.native.child.host import Machine
from supervm_rt.transports.native.child.storage import Storage

MOST_TASKS = 64
"""Threads of a plugin."""
OWN_TASKS = 8
"""Of bubblewrap and what starts it."""
OVERHEAD_BYTES = 32 << 20
"""Libraries and the tables of the kernel are no memory of the plugin's."""


def enforce(
    machine: Machine, resources: Resources, storage: Storage | None, *, shared: int, memory: str
) -> tuple[Group | None, dict[str, str]]:
    """Puts up the control group, where there can be one. Returns it, and what enforces each limit.

    ``shared``: bytes of memory that is the plugin's and the host's. ``memory``: what enforces that limit without a group.
    """
    group = None
    if machine.bases is not None:
        most = None if resources.memory is None else resources.memory + shared + OVERHEAD_BYTES
        group = Group(machine.bases, Quotas(memory=most, cpu=resources.cpu, tasks=MOST_TASKS + OWN_TASKS))
    means = f"cgroup v{group.version}" if group else ""
    enforced = group.enforces if group else frozenset()
    found = {}
    if resources.memory is not None:
        found["memory"] = f"{means}, rlimit" if "memory" in enforced else memory
    if resources.cpu is not None:
        found["cpu"] = means if "cpu" in enforced else "polling"
    if resources.storage is not None:
        unused = "no writable folder" if resources.storage == 0 else "nothing"
        found["storage"] = unused if storage is None else str(storage.way)
    return group, found


def refuse_less(plugin: str, machine: Machine, confinement: Confinement) -> None:
    """Raises PolicyRefused for what this machine cannot do."""
    missing = [f"the quota of {name}" for name in confinement.unenforced]
    if confinement.degraded:
        missing.append(f"namespaces ({machine.why_degraded})")
    if missing:
        raise PolicyRefused(
            f"{plugin}: this machine cannot enforce {' and '.join(missing)}",
            remedy="run the node as root (storage needs loop devices and e2fsprogs), or delegate it a control group, "
            "and allow user namespaces",
        )
