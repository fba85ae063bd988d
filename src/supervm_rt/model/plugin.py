"""A plugin as the runtime knows it: who it is, which life, what it was given (clause L1)."""

from __future__ import annotations

from dataclasses import dataclass

from supervm_rt.errors import ConfigurationError
from supervm_rt.model.manifest import Capability


@dataclass(frozen=True, slots=True)
class AssignedResources:
    """What a registered plugin was given."""

    ring_bytes: int
    """Capacity of the ring between plugin and host."""
    cpu: float | None
    """Cores, as the manifest asks; None: no limit."""
    memory: int | None
    """Bytes, likewise."""
    storage: int | None
    """Bytes, likewise."""
    enforced: bool
    """Whether cpu, memory and storage are all enforced: never in process, and known once the plugin is loaded."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The answer to a registration. Every handle to a plugin carries it; nothing meant for one life reaches the next."""

    plugin: str
    """The plugin's id in this runtime; unique; the same over restarts."""
    generation: int
    """1 for the first life, one more for each restart."""
    chain: str
    """The name under which its chain is mirrored."""
    capabilities: frozenset[Capability]
    resources: AssignedResources


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The longest that each call into a plugin may take, in seconds (clauses A4, L5)."""

    load: float = 30.0
    init: float = 30.0
    start: float = 30.0
    stop: float = 30.0

    def __post_init__(self) -> None:
        """Raises ConfigurationError for what is no length of time."""
        for name in ("load", "init", "start", "stop"):
            seconds = getattr(self, name)
            if not 0 < seconds < float("inf"):
                raise ConfigurationError(f"the deadline of {name} is {seconds!r}", remedy="give a number of seconds above 0")
