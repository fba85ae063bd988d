"""From frames to what the mirror takes: admission, and the chain's translator."""

from __future__ import annotations

from collections.abc import Iterable

from supervm_rt import _abi
from supervm_rt.ir.translator import BlockRefused, Translator
from supervm_rt.model.chain import Reason, Rejection
from supervm_rt.store import BlockInput, EndOfInput, FinalInput, Input, RefusedInput, ReorgInput


def translate_frames(translator: Translator, frames: Iterable[_abi.Frame]) -> list[Input]:
    """One input for each frame, in order. For many, in a worker thread: parsing releases the GIL.

    The returned inputs hold on to the frames' memory until they are dropped.
    """
    return [_translate(translator, frame) for frame in frames]


def _translate(translator: Translator, frame: _abi.Frame) -> Input:
    position = frame.position
    if frame.kind == _abi.KIND_BLOCK:
        try:
            translated = translator.translate(frame)
        except BlockRefused as refusal:
            return RefusedInput(Rejection(refusal.hash, refusal.reason, refusal.detail), position=position)
        return BlockInput(translated, raw=memoryview(frame), position=position, final_height=frame.final_height)
    if frame.kind == _abi.KIND_REORG and frame.height is not None and frame.to_height is not None:
        return ReorgInput(frame.height, frame.to_height, tuple(frame.orphans), position=position)
    if frame.kind == _abi.KIND_FINALIZED and frame.height is not None:
        return FinalInput(frame.hash, frame.height, position=position)
    if frame.kind == _abi.KIND_END_OF_INPUT:
        return EndOfInput(position=position)
    return RefusedInput(
        Rejection(frame.hash or None, Reason.MALFORMED, f"a frame of kind {frame.kind} with fields missing"), position=position
    )
