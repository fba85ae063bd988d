"""What a message of a plugin means, by Google's protobuf: classes of the same description, and the rules in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = Path(__file__).parents[2] / "src/supervm_rt/transports/remote/messages_generated/descriptors.binpb"
MAX_BATCH = 8192
MAX_ORPHANS = 65536
UNKNOWN = 2**64 - 1
BLOCK, REORG, FINALIZED, END_OF_INPUT = 1, 2, 3, 4


def _block_message() -> Any:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        for message in file.message_type:
            if not message.field:
                # upb does not look into a message that has no fields, not even for its framing; the decoder does.
                message.field.add(name="nothing", number=2**28, type=FieldDescriptorProto.TYPE_BYTES, label=1)
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("supervm.plugin.BlockMessage"))


BlockMessage: Any = _block_message()
NUMBERS = {field.name: field.number for field in BlockMessage.DESCRIPTOR.oneofs_by_name["body"].fields}
_FRAMES = ("reorg", "finalized", "end_of_input")


class NoMessage(Exception):
    """Google's protobuf cannot read it."""


class NotAllowed(Exception):
    """It is a message, and says what a plugin must not say."""


@dataclass(frozen=True)
class Said:
    """What a frame has to be."""

    kind: int
    payload: bytes = b""
    position: bytes = b""
    height: int | None = None
    final_height: int | None = None
    time: int | None = None
    hash: bytes = b""
    parent: bytes = b""
    weight: int | None = None
    to_height: int | None = None
    orphans: tuple[bytes, ...] = ()


def meaning(data: bytes, chain: str | None) -> list[Said] | tuple[int, Any]:
    """Frames, or the number of the body's field and the body. Raises NoMessage, NotAllowed."""
    try:
        message = BlockMessage.FromString(data)
    except DecodeError as error:
        raise NoMessage(str(error)) from None
    body = message.WhichOneof("body")
    if body == "batch":
        _require(_is_chain(message.chain, chain))
        _require(len(message.batch.blocks) <= MAX_BATCH)
        for each in message.batch.blocks:
            _require(each.WhichOneof("body") in {None, *_FRAMES})
        return [_said(each, chain) for each in message.batch.blocks]
    if body is None or body in _FRAMES:
        return [_said(message, chain)]
    return NUMBERS[body], getattr(message, body)


def _require(allowed: bool) -> None:
    if not allowed:
        raise NotAllowed


def _is_chain(said: str, chain: str | None) -> bool:
    return not said or chain is None or said == chain


def _known(height: int) -> int | None:
    return None if height == UNKNOWN else height


def _said(message: Any, chain: str | None) -> Said:
    _require(_is_chain(message.chain, chain) and len(message.position) <= 256)
    body = message.WhichOneof("body")
    if body == "reorg":
        reorg = message.reorg
        orphans = tuple(reorg.orphan_block_hashes)
        _require(_is_chain(reorg.chain, chain))
        _require(reorg.to_height <= reorg.from_height < UNKNOWN and len(orphans) <= MAX_ORPHANS)
        _require(len({len(each) for each in orphans}) <= 1 and all(1 <= len(each) <= 64 for each in orphans))
        return Said(
            REORG,
            b"".join(orphans),
            message.position,
            height=reorg.from_height,
            to_height=reorg.to_height,
            orphans=orphans,
        )
    if body == "finalized":
        _require(message.finalized.height < UNKNOWN and 1 <= len(message.finalized.hash) <= 64)
        return Said(FINALIZED, b"", message.position, height=message.finalized.height, hash=message.finalized.hash)
    if body == "end_of_input":
        return Said(END_OF_INPUT, b"", message.position)
    _require(len(message.hash) <= 64 and len(message.parent) <= 64 and len(message.weight) <= 32 and message.step == 0)
    height = _known(message.height or UNKNOWN)
    if message.genesis:
        _require(height is None)
        height = 0
    time = None
    if message.HasField("timestamp"):
        _require(0 <= message.timestamp.nanos < 10**9)
        time = message.timestamp.seconds * 10**9 + message.timestamp.nanos
        # Seconds that alone do not fit say nothing, as does what does not fit with the nanoseconds.
        fits = all(-(2**63) <= each < 2**63 for each in (message.timestamp.seconds * 10**9, time))
        time = time if fits and time != -(2**63) else None
    return Said(
        BLOCK,
        message.block_bytes,
        message.position,
        height=height,
        final_height=_known(message.final_height) if message.HasField("final_height") else None,
        time=time,
        hash=message.hash,
        parent=message.parent,
        weight=int.from_bytes(message.weight, "little") if message.weight else None,
    )
