"""What holds a child to the limits of its manifest, limit by limit, and what a policy says where that is not enough."""

from __future__ import annotations

from supervm_rt.errors import PolicyRefused
from supervm_rt.model.manifest import Resources
from supervm_rt.transports.interface import Confinement
from supervm_rt.transports.native.child.cgroups import Bases, Group, Quotas
from supervm_rt.transports.native.child.host import Machine
from supervm_rt.transports.native.child.storage import Storage

SIDE_RING_BYTES = 4 << 20
MOST_TASKS = 64
OWN_TASKS = 8
"""Of bubblewrap and the runner."""
OVERHEAD_BYTES = 32 << 20


def put_up(
    bases: Bases | None, resources: Resources, storage: Storage | None, *, rings: int
) -> tuple[Group | None, dict[str, str]]:
    """Puts up the control group, where there can be one. Returns it, and what enforces each limit. ``rings``: their bytes."""
    limits = Quotas(
        # The rings, the libraries and the tables of the kernel are no memory of the plugin's.
        memory=None if resources.memory is None else resources.memory + rings + OVERHEAD_BYTES,
        cpu=resources.cpu,
        tasks=MOST_TASKS + OWN_TASKS,
    )
    group = None if bases is None else Group(bases, limits)
    means = f"cgroup v{group.version}" if group else ""
    enforced = group.enforces if group else frozenset()
    found = {}
    if resources.memory is not None:
        found["memory"] = f"{means}, rlimit" if "memory" in enforced else "rlimit"
    if resources.cpu is not None:
        found["cpu"] = means if "cpu" in enforced else "polling"
    if resources.storage is not None:
        unused = "no writable folder" if resources.storage == 0 else "nothing"
        found["storage"] = unused if storage is None else str(storage.way)
    return group, found


def refuse_less(plugin: str, here: Machine, confinement: Confinement) -> None:
    """Raises PolicyRefused for what this machine cannot do."""
    missing = [f"the quota of {name}" for name in confinement.unenforced]
    if confinement.degraded:
        missing.append(f"namespaces ({here.why_degraded})")
    if missing:
        raise PolicyRefused(
            f"{plugin}: this machine cannot enforce {' and '.join(missing)}",
            remedy="run the node as root (storage needs loop devices and e2fsprogs), or delegate it a control group, "
            "and allow user namespaces",
        )
