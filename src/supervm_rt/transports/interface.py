"""What every transport offers the supervisor: one contract, whichever way a plugin comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from supervm_rt._abi import Frame, Message, RingStatistics
from supervm_rt.errors import LifecycleError
from supervm_rt.model.manifest import Capability
from supervm_rt.trust.policy import Placement


class CallOverdue(LifecycleError):
    """A call into the plugin passed its deadline and still runs."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is around the code of a sandboxed plugin."""

    degraded: bool
    """There are no namespaces: Landlock and seccomp alone confine it."""
    user: int
    """The user that it runs as."""
    landlock: int
    """The version of Landlock; 0: none."""
    seccomp_profile: str
    quotas: Mapping[str, str] = field(default_factory=dict)
    """What is behind each limit that the manifest sets: ``cgroup v2``, ``cgroup v1``, ``rlimit``, ``file system``; or
    ``polling``: the host looks, and acts afterwards."""

    @property
    def unenforced(self) -> list[str]:
        """The limits that can be passed for a moment, or for ever."""
        return [name for name, means in self.quotas.items() if means in {"polling", "nothing"}]

    def __str__(self) -> str:
        """One line for a person."""
        layers = ["Landlock" if self.landlock else "no Landlock", f"seccomp {self.seccomp_profile}", f"user {self.user}"]
        layers += [f"{name}: {means}" for name, means in self.quotas.items()]
        if not self.degraded:
            return f"sandboxed (namespaces, {', '.join(layers)})"
        return f"sandboxed in degraded mode, without namespaces ({', '.join(layers)})"


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A limit of the manifest that a plugin has come to, and lives on with."""

    resource: str
    """``cpu``, ``memory`` or ``storage``."""
    message: str
    """For a person."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a plugin said since it was last asked."""

    frames: Sequence[Frame] = ()
    messages: Sequence[Message] = ()
    shutdown: int | None = None
    """The reason code of a request for shutdown, given once."""
    exhausted: Sequence[Exhausted] = ()

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.frames) or bool(self.messages) or self.shutdown is not None or bool(self.exhausted)


class PluginTransport(Protocol):
    """One life of one plugin. Calls are made in the order of the lifecycle and raise LifecycleError or another PluginError."""

    placement: Placement

    @property
    def confinement(self) -> Confinement | None:
        """What is around its code, once it is loaded; None: nothing."""

    async def load(self) -> bytes:
        """Brings the plugin's code in. Returns what it says of itself (JSON)."""

    def grant(self, *, capabilities: frozenset[Capability], configuration: bytes, position: bytes | None) -> None:
        """Says what the plugin may reach. Called once, before init."""

    async def init(self) -> None:
        """Initialises."""

    async def start(self) -> None:
        """Starts."""

    async def receive(self) -> Received:
        """Waits until the plugin said something. What was taken is returned, whatever is cancelled meanwhile."""

    def gather(self, received: Received) -> Received:
        """With it, what else is there already, where receive gives less than a commit may hold. Raises nothing of its own."""

    def receive_rest(self) -> Received:
        """What is there now, possibly nothing at all. Never waits. For the time after stop."""

    def committed(self, position: bytes) -> None:
        """What was received up to this position is durable."""

    async def stop(self) -> None:
        """Stops, also while start runs. Frames that were said before can still be received, also after an error that is not
        CallOverdue: then it has ended."""

    async def unload(self) -> None:
        """Gives everything back. After LifecycleError the plugin counts as abandoned, and its leftovers stay."""

    def abandon(self) -> None:
        """Gives the plugin up after a call that never returned."""

    @property
    def longest_silence(self) -> float:
        """Seconds without a sign of life after which the plugin counts as hung."""

    def silence(self) -> float | None:
        """Seconds since the last sign of life; None where the plugin is not held to any."""

    def statistics(self) -> RingStatistics | None:
        """Counters of the ring; None before load."""
