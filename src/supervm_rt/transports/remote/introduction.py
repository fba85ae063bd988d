"""What a remote plugin says of itself when it registers, and what the server needs of the node around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.ir import BlockIR
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.remote.peers import Peer


@dataclass(frozen=True, slots=True)
class Introduction:
    """The fields of a RegisterRequest, and who sent it."""

    name: str
    version: str
    chain: str
    capabilities: tuple[str, ...]
    manifest: str
    """Its plugin.yaml as JSON; empty: it sent none."""
    revision: int
    """Of the contract, that it knows; 0: the v0 draft."""
    peer: Peer


@dataclass(slots=True)
class Said:
    """What an introduction says, read once, however long it waits to be let in."""

    introduction: Introduction
    manifest: Manifest
    agrees: Manifest | None = None
    """The host's own manifest, with which it was compared last, without a difference."""


class Event(Protocol):
    """One event of a feed, as subscribers are told it."""

    @property
    def chain(self) -> str:
        """Name of the chain."""

    @property
    def step(self) -> Step:
        """What happened to the block."""

    @property
    def block(self) -> BlockRef:
        """The block."""

    @property
    def parent(self) -> bytes:
        """Id of the block before it."""

    @property
    def time(self) -> int:
        """Seconds since the epoch, as the block says."""

    @property
    def raw(self) -> bytes | None:
        """Its bytes, where they were asked for."""

    @property
    def ir(self) -> BlockIR | None:
        """The block as values, where it was asked for."""

    @property
    def cursor(self) -> str:
        """Goes on behind this event."""


class Subscription(Protocol):
    """A consumer of a feed."""

    async def batch(self, *, wait: bool = True) -> Sequence[Event]:
        """All events that are ready; none: it ended."""


class Host(Protocol):
    """The node around the server."""

    async def opened(self, seconds: float) -> bool:
        """Whether the node knows all plugins of its configuration, for which it waits so many seconds at most."""

    def read(self, introduction: Introduction) -> Said:
        """Reads what a plugin says of itself. Raises SuperVMError."""

    async def admit(self, said: Said) -> str:
        """The id of the plugin that registers; one that is not known is added where the policy allows it. Raises SuperVMError."""

    def withdraw(self, said: Said, taken: Callable[[str], bool]) -> None:
        """A registration was broken off: a plugin that was added for it is ended, where nobody else registered as it.

        ``taken``: whether the present life of a plugin has been registered.
        """

    def refusal(self, plugin: str) -> str:
        """Why a plugin that was admitted will have no further life by itself; empty: it has one, or will."""

    def subscribe(
        self,
        chains: Sequence[str],
        *,
        cursor: str | None,
        start: str | int,
        steps: Iterable[Step],
        raw: bool,
        ir: bool,
        follow: bool,
    ) -> Subscription:
        """Events of chains. Raises SuperVMError."""

    def ir_json(self, event: Event) -> str:
        """The IR of an event's block, where it was asked for, as JSON."""

    async def network(self, chain: str) -> str:
        """The network of a chain of the store; empty where its family has none. Raises StoreError."""

    async def chains(self, cursor: str | None) -> Sequence[str]:
        """Names of all chains that were ever mirrored here; with a cursor, of those that it is of. Raises SuperVMError."""

    @property
    def ending(self) -> bool:
        """The node is being ended."""

    def health(self) -> tuple[bool, str]:
        """Whether the node serves, and a line about it."""

    def report(
        self, kind: EventKind, message: str, *, severity: Severity = Severity.INFO, data: Mapping[str, object] | None = None
    ) -> None:
        """Hands an event to the node's sink."""
