"""Whether two stores hold the same: one hash over a chain's blocks and events.

What goes in, each part after its length or in a fixed width, so that no two chains give the same bytes:

1. a version of this format, the chain's family, network and mode;
2. every known block in order of arrival: id, parent, height, weight, content tag, state, raw bytes, IR;
3. every event in order: step, block id, height.

Where old events were deleted (retention), the format's name ends in " from N", N being how many: such a chain is equal only to
one that lacks the same ones.

Left out is what may differ between stores that were fed the same input: row numbers, the chain's name, plugin ids and positions,
clocks, how the input was cut into batches, and how often a process was killed on the way.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from supervm_rt.store.faults import decoding
from supervm_rt.store.queries import STEPS, ChainReader, check_body, state_of
from supervm_rt.store.schema import StepCode

if TYPE_CHECKING:
    from supervm_rt.store.database import Store

FORMAT: Final = b"supervm-rt chain digest 1"

_LENGTH: Final = struct.Struct(">Q")
_EVERY: Final = 256
"""Rows between two calls of ``progress``."""


@dataclass(frozen=True, slots=True)
class ChainDigest:
    """The answer, and what went into it."""

    hex: str
    """SHA-256, 64 hexadecimal digits."""
    blocks: int
    """Known blocks, side branches and waiting orphans included."""
    events: int
    bytes: int
    """Raw bytes of these blocks."""


def digest(store: Store, chain: str | ChainReader, progress: Callable[[int, int], None] | None = None) -> ChainDigest:
    """Reads the whole chain, in one snapshot: a writer may go on meanwhile, but its log grows until this has ended.

    ``progress(rows, total)`` is called now and then; an exception that it raises ends the reading. Raises NotInStore and
    StoreCorrupt.
    """
    reader = store.chain(chain) if isinstance(chain, str) else chain
    hashed = hashlib.sha256()

    def put(*parts: bytes) -> None:
        for part in parts:
            hashed.update(_LENGTH.pack(len(part)))
            hashed.update(part)

    with store.snapshot() as connection:
        info, counts = reader.info(), reader.statistics()
        final_height = None if info.final is None else info.final.height
        total = counts.blocks + counts.waiting + counts.events
        (kept,) = connection.execute("SELECT count(*) FROM events WHERE chain = ?", (reader.id,)).fetchone()
        deleted = counts.events - kept
        total -= deleted
        put(
            FORMAT + (f" from {deleted}".encode() if deleted else b""),
            info.family.encode(),
            info.network.encode(),
            info.rules.mode.encode(),
        )
        blocks = size = 0
        for hash_, parent, height, weight, content, state, raw_checksum, raw, ir_checksum, ir in connection.execute(
            "SELECT b.hash, b.parent, b.height, b.weight, b.content, b.state, d.raw_checksum, d.raw, d.ir_checksum, d.ir"
            " FROM blocks b JOIN bodies d ON d.block = b.id WHERE +b.chain = ? ORDER BY b.id",
            (reader.id,),
        ):
            with decoding(store.path):
                settled = state_of(state, height, final_height)
                put(hash_, parent, _number(height), weight, content, settled.encode())
                put(check_body(store, hash_, raw_checksum, raw), check_body(store, hash_, ir_checksum, ir))
            blocks += 1
            size += len(raw)
            if progress is not None and blocks % _EVERY == 0:
                progress(blocks, total)
        put(_number(blocks))
        events = 0
        for step, hash_, height in connection.execute(
            "SELECT e.step, b.hash, b.height FROM events e JOIN blocks b ON b.id = e.block WHERE e.chain = ? ORDER BY e.sequence",
            (reader.id,),
        ):
            with decoding(store.path):
                put(STEPS[StepCode(step)].encode(), hash_, _number(height))
            events += 1
            if progress is not None and events % _EVERY == 0:
                progress(blocks + events, total)
        put(_number(events))
    return ChainDigest(hashed.hexdigest(), blocks, events, size)


def _number(value: int | None) -> bytes:
    try:
        return b"" if value is None else _LENGTH.pack(value)
    except struct.error as error:
        raise ValueError(f"{value!r} is no count") from error
