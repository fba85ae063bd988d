"""One mirrored chain: its translator, its mirror, and what happened since the runtime opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from supervm_rt._abi import Frame
from supervm_rt.ir.translator import Translator
from supervm_rt.model.chain import BlockRef, ChainEvent, Rejection, Step, Verdict
from supervm_rt.model.events import EventKind, Severity
from supervm_rt.model.plugin import Registration
from supervm_rt.runtime.intake import translate_frames
from supervm_rt.runtime.sink import EventSink
from supervm_rt.store import Applied, BlockInput, EndOfInput, Input, Mirror

MAX_REJECTIONS_KEPT = 10_000
_TRANSLATED_HERE = 16 << 10
_FRAMES_TRANSLATED_HERE = 16
"""Of a batch with no more bytes and frames, some 0.1 ms at most, the loop's own thread makes inputs."""


@dataclass(slots=True)
class ChainSummary:
    """Counters of one chain since the runtime opened."""

    chain: str
    tip: BlockRef | None = None
    final: BlockRef | None = None
    blocks: int = 0
    """Blocks taken from plugins and kept, side branches and those that wait for a parent included."""
    transactions: int = 0
    """Transactions of these blocks."""
    reorgs: int = 0
    deepest_reorg: int = 0
    """Blocks undone by the deepest of them."""
    raw_bytes: int = 0
    """Bytes of all blocks taken in, refused ones included."""
    orphans: int = 0
    """Blocks that arrived before their parents."""
    duplicates: int = 0
    rejected: dict[tuple[bytes | None, str], Rejection] = field(default_factory=dict)
    """Each block and reason once, the first 10,000."""
    rejections: int = 0
    """How many inputs were rejected in all."""


@dataclass(frozen=True, slots=True)
class Translated:
    """One batch, ready to be committed. It holds the memory of its frames."""

    inputs: Sequence[Input]
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of one batch."""

    rejections: int
    end_of_input: bool
    """The batch ended with the plugin's word that there is no more input for now."""
    position: bytes
    """The plugin's last position in it; empty: it gave none."""


class ChainPipeline:
    """Translates and commits batches. Each is committed by itself, in the order in which they came; while one is, another may be
    translated, which depends on its bytes alone."""

    def __init__(
        self,
        mirror: Mirror,
        translator: Translator,
        sink: EventSink,
        store_turn: trio.Lock,
        committed: Callable[[int], None],
    ) -> None:
        """``store_turn`` is shared by all chains of a store: it has one writer. ``committed`` hears how many events were."""
        self.name = mirror.name
        self.rules = mirror.rules
        self.translator = translator
        self._mirror = mirror
        self._sink = sink
        self._store_turn = store_turn
        self._committed = committed
        self.summary = ChainSummary(chain=mirror.name, tip=mirror.tip, final=mirror.final)

    async def translate(self, frames: Sequence[Frame]) -> Translated:
        """Parses and verifies a batch."""
        size = sum(map(len, frames))
        if size <= _TRANSLATED_HERE and len(frames) <= _FRAMES_TRANSLATED_HERE:
            # Which takes less time than the way to a thread and back, at the tip of a chain the larger part of it.
            await trio.lowlevel.checkpoint_if_cancelled()
            inputs = translate_frames(self.translator, frames)
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            inputs = await trio.to_thread.run_sync(translate_frames, self.translator, frames)
        return Translated(inputs, raw_bytes=size)

    async def commit(self, registration: Registration, batch: Translated) -> Ingested:
        """Commits a batch, wholly or not at all. Raises StoreError; the chain then takes nothing more."""
        inputs = batch.inputs
        try:
            async with self._store_turn:
                applied = await trio.to_thread.run_sync(self._mirror.apply, registration.plugin, inputs)
                self._committed(sum(len(one.events) for one in applied))
        finally:
            # The traceback of a failure lives as long as the failure is told; the plugin's memory must not wait for that.
            for input_ in inputs:
                if isinstance(input_, BlockInput) and isinstance(input_.raw, memoryview):
                    input_.raw.release()
        position = next((input_.position for input_ in reversed(inputs) if input_.position), b"")
        self.summary.raw_bytes += batch.raw_bytes
        before = self.summary.rejections
        for one in applied:
            self._account(registration, one)
        self.summary.tip = self._mirror.tip
        self.summary.final = self._mirror.final
        return Ingested(rejections=self.summary.rejections - before, end_of_input=_ends(inputs), position=position)

    def _account(self, registration: Registration, applied: Applied) -> None:
        summary = self.summary
        given = applied.input
        verdict = applied.outcome.verdict
        events = applied.outcome.events
        if isinstance(given, BlockInput):
            summary.orphans += verdict is Verdict.ORPHAN
            summary.duplicates += verdict is Verdict.DUPLICATE
            if verdict is Verdict.ACCEPTED or (verdict is Verdict.ORPHAN and not applied.dropped):
                summary.blocks += 1
                summary.transactions += len(given.translated.transaction_ids) // 32
        undone = sum(event.step is Step.UNDO for event in events)
        if undone:
            summary.reorgs += 1
            summary.deepest_reorg = max(summary.deepest_reorg, undone)
            self._sink.emit(
                EventKind.CHAIN_REORG,
                f"{self.name}: reorg of depth {undone}, now at {_text(_last_new(events))}",
                registration=registration,
                data={"depth": undone, "undone": [event.block.hash.hex() for event in events if event.step is Step.UNDO]},
            )
        for rejection in applied.rejections:
            self._reject(registration, rejection)

    def _reject(self, registration: Registration, rejection: Rejection) -> None:
        summary = self.summary
        summary.rejections += 1
        key = (rejection.hash, str(rejection.reason))
        if key not in summary.rejected and len(summary.rejected) < MAX_REJECTIONS_KEPT:
            summary.rejected[key] = rejection
        name = rejection.hash.hex() if rejection.hash else "(no hash)"
        self._sink.emit(
            EventKind.CHAIN_REJECTED,
            f"{self.name}: block {name} rejected: {rejection.reason} ({rejection.detail})",
            severity=Severity.WARNING,
            registration=registration,
            data={"hash": rejection.hash.hex() if rejection.hash else None, "reason": str(rejection.reason)},
        )


def _ends(inputs: Sequence[Input]) -> bool:
    return bool(inputs) and isinstance(inputs[-1], EndOfInput)


def _last_new(events: Sequence[ChainEvent]) -> BlockRef | None:
    return next((event.block for event in reversed(events) if event.step is Step.NEW), None)


def _text(block: BlockRef | None) -> str:
    return f"{block.hash.hex()} ({block.height})" if block else "the block below"
