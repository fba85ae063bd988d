"""What a feed hands out: events with their cursors, and what a consumer asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from supervm_rt.chain.cursor import MAX_NAME_BYTES, ChainPlace, Cursor, Sealer
from supervm_rt.errors import ConfigurationError
from supervm_rt.model.chain import BlockRef, Step
from supervm_rt.model.ir import BlockIR, TransactionIR
from supervm_rt.store.schema import HIGHEST_INTEGER, StepCode

STEP_OF: Final = {int(StepCode.NEW): Step.NEW, int(StepCode.UNDO): Step.UNDO, int(StepCode.FINAL): Step.FINAL}
CODE_OF: Final = {step: code for code, step in STEP_OF.items()}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ALL_STEPS: Final = frozenset(Step)


class Row(NamedTuple):
    """One entry of the log with its block, as SQL gives it."""

    sequence: int
    """0: not of the log; told in place of events that were deleted."""
    chain: int
    step: int
    block: int
    hash: bytes
    height: int
    parent: bytes
    time: int
    committed: int | None
    """Nanoseconds since the epoch."""


RawRow: TypeAlias = tuple[int, int, int, int, bytes, int, bytes, int, int | None]
Finals: TypeAlias = tuple[tuple[bytes, int] | None, ...]
"""Id and height of the last final block of each chain of a subscription."""


class Context:
    """What the events of a stretch of one subscription share."""

    __slots__ = ("catching_up", "places", "position", "sealer")

    def __init__(self, sealer: Sealer, places: tuple[ChainPlace, ...], position: int) -> None:
        self.sealer = sealer
        self.places = places
        self.position = position
        """For events that are not of the log."""
        self.catching_up = any(place.catching_up for place in places)
        """Whether the next events are not those of the log."""


@dataclass(slots=True)
class Body:
    """What was asked for of a block."""

    raw: bytes | None = None
    ir: BlockIR | None = None
    encoded: bytes | None = None
    transactions: tuple[TransactionIR, ...] | None = None


_NOTHING: Final = Body()


class FeedEvent:
    """One step of a chain that a subscription tells, with the cursor behind it. Consumers that have kept up may share one."""

    __slots__ = ("_context", "_finals", "_index", "_row", "body")

    def __init__(self, context: Context, index: int, row: RawRow, finals: Finals) -> None:
        """For the feed."""
        self._context = context
        self._index = index
        self._row = row
        self._finals = finals
        self.body = _NOTHING
        """Its block, as far as it was asked for."""

    @property
    def raw(self) -> bytes | None:
        """The block's bytes, where they were asked for."""
        return self.body.raw

    @property
    def ir(self) -> BlockIR | None:
        """The block as values, where it was asked for."""
        return self.body.ir

    @property
    def encoded(self) -> bytes | None:
        """The same, as the columns that the store holds (``ir.columns``)."""
        return self.body.encoded

    @property
    def transactions(self) -> tuple[TransactionIR, ...] | None:
        """Those that the filter asks for, in block order; None where there is no such filter."""
        return self.body.transactions

    @property
    def chain(self) -> str:
        """The chain's name in the store."""
        return self._context.places[self._index].chain

    @property
    def step(self) -> Step:
        """What happened to the block."""
        return STEP_OF[self._row[2]]

    @property
    def block(self) -> BlockRef:
        """The block."""
        return BlockRef(self._row[4], self._row[5])

    @property
    def parent(self) -> bytes:
        """Id of the block before it; the tip, after an UNDO."""
        return self._row[6]

    @property
    def time(self) -> int:
        """Seconds since the epoch, as the block says."""
        return self._row[7]

    @property
    def sequence(self) -> int | None:
        """Place in the store's log; None where the event stands for deleted ones."""
        return self._row[0] or None

    @property
    def committed(self) -> float | None:
        """When the store committed it, in seconds since the epoch by the host's clock; None where that was deleted."""
        nanoseconds = self._row[8]
        return None if nanoseconds is None else nanoseconds / 1e9

    @property
    def committed_at(self) -> datetime | None:
        """The same as a moment, in UTC."""
        nanoseconds = self._row[8]
        return None if nanoseconds is None else _EPOCH + timedelta(microseconds=nanoseconds // 1000)

    @property
    def cursor(self) -> str:
        """Goes on behind this event. Worked out when it is asked for."""
        return self._context.sealer.seal(self.place())

    def place(self) -> Cursor:
        """What the cursor says."""
        places = tuple(
            replace(place, final=None if final is None else BlockRef(*final))
            for place, final in zip(self._context.places, self._finals, strict=True)
        )
        return Cursor(self._row[0] or self._context.position, places, self.step, self._index, self.block)

    def bare(self) -> FeedEvent:
        """The same without its block, to keep for its cursor."""
        return FeedEvent(self._context, self._index, self._row, self._finals)

    @property
    def index(self) -> int:
        """Which of the subscription's chains, in the order of its cursor."""
        return self._index

    def __repr__(self) -> str:
        return f"<{self.step} {self.block.hash.hex()} at height {self.block.height} of {self.chain}>"


@dataclass(frozen=True, slots=True)
class Transactions:
    """Which transactions: those that pay to, or spend from, one of the addresses or scripts, and those of these ids."""

    addresses: Sequence[str] = ()
    scripts: Sequence[bytes] = ()
    """Output scripts."""
    ids: Sequence[bytes] = ()
    """Display order."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError: text in place of bytes, or of a list, would match nothing."""
        if not all(isinstance(one, bytes) for one in (*self.scripts, *self.ids)):
            raise ConfigurationError(
                "scripts and transactions are lists of bytes", remedy="convert hexadecimal with bytes.fromhex"
            )
        if isinstance(self.addresses, str) or not all(isinstance(one, str) for one in self.addresses):
            raise ConfigurationError("addresses are a list of texts", remedy="put a single one into a list")


BEGINNING: Final = "beginning"
NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class Last:
    """A start: the last events that are kept, of all chains of the subscription together."""

    events: int


@dataclass(frozen=True, slots=True)
class Request:
    """What a subscription asks for. Raises ConfigurationError where it contradicts itself."""

    chains: tuple[str, ...]
    start: Cursor | str | int | Last = BEGINNING
    """A cursor, BEGINNING, NOW, a height, or the last events."""
    steps: frozenset[Step] = ALL_STEPS
    transactions: Transactions | None = None
    raw: bool = False
    ir: bool = False
    bodies: bool = field(init=False)
    """Whether blocks are read, and not only the log."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bodies", self.raw or self.ir or self.transactions is not None)
        if not self.chains or len(set(self.chains)) != len(self.chains):
            raise ConfigurationError("a subscription is of one chain or more, each once", remedy="name the chains")
        for name in self.chains:
            if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
                raise ConfigurationError(
                    f"a chain's name of {len(name)} characters is too long for a cursor", remedy="shorten it"
                )
        if not self.steps or not self.steps <= ALL_STEPS:
            what = "without steps has no events" if not self.steps else f"knows no step {min(map(str, self.steps - ALL_STEPS))!a}"
            raise ConfigurationError(f"a subscription {what}", remedy="name new, undo or final")
        number = self.start.events if isinstance(self.start, Last) else self.start
        if isinstance(number, int) and not 0 <= number <= HIGHEST_INTEGER:
            raise ConfigurationError(f"a subscription cannot begin at {number}", remedy="give a number from 0 on")
        if isinstance(self.start, int) and len(self.chains) > 1:
            raise ConfigurationError(
                "several chains cannot begin at one height",
                remedy="subscribe to each by itself, or begin at the beginning, with the last events, now or at a cursor",
            )
        if not isinstance(self.start, Cursor | Last | int) and self.start not in {BEGINNING, NOW}:
            raise ConfigurationError(f"{self.start!a} is no start", remedy=f"use {BEGINNING}, {NOW} or a height")
