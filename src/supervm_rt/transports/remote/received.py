"""What a plugin says on its exchange, read: frames, as every transport gives them, and all else."""

from __future__ import annotations

import datetime
from typing import TypeAlias, cast

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt import _abi
from supervm_rt.transports.remote.fields import check
from supervm_rt.transports.remote.messages import Buffer
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.wire import MOST_IN_BATCH

MAX_ID_BYTES = 64
MAX_POSITION_BYTES = 256
MAX_WEIGHT_BYTES = 32
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_FRAMES = {"", "reorg", "finalized", "end_of_input"}

Said: TypeAlias = proto.Log | proto.Metric | proto.Beat | proto.SubmitTxRequest | proto.Shutdown | None


class ReceivedFrame(bytes):
    """One thing that a plugin said: the payload, with the fields of ``_abi.Frame``."""

    kind: int
    height: int | None = None
    final_height: int | None = None
    time: int | None = None
    weight: int | None = None
    hash: bytes = b""
    parent: bytes = b""
    position: bytes = b""
    to_height: int | None = None
    orphans: list[bytes]
    generation: int


def hear(message: Buffer, chain: str, generation: int) -> tuple[list[_abi.Frame], Said]:
    """Frames, or what else was said. Raises GRPCError for what is no message of the contract."""
    data = bytes(message)
    try:
        check(data, proto.BlockMessage)
        said = proto.BlockMessage.FromString(data)
    except Exception as error:  # the library has no error of its own for most of it
        raise GRPCError(Status.INVALID_ARGUMENT, f"a message that is no BlockMessage ({error or type(error).__name__})") from None
    if said.batch is not None:
        if len(said.batch.blocks) > MOST_IN_BATCH:
            raise GRPCError(Status.INVALID_ARGUMENT, f"a batch of {len(said.batch.blocks)} messages; at most {MOST_IN_BATCH}")
        frames = [_frame(each, chain, generation) for each in said.batch.blocks]
        return cast("list[_abi.Frame]", frames), None
    for other in (said.log, said.metric, said.beat, said.submit, said.shutdown):
        if other is not None:
            return [], other
    if _is_ignored(said):
        return [], None
    return cast("list[_abi.Frame]", [_frame(said, chain, generation)]), None


def _is_ignored(said: proto.BlockMessage) -> bool:
    """What a plugin has no reason to say, or this version does not ask for."""
    others = (said.submitted, said.acknowledge, said.credit, said.stop, said.rpc_request, said.rpc_answer)
    return any(each is not None for each in (*others, said.archive_request, said.archive_answer, said.cancel))


def _frame(said: proto.BlockMessage, chain: str, generation: int) -> ReceivedFrame:
    frame = ReceivedFrame(said.block_bytes)
    frame.generation = generation
    frame.orphans = []
    frame.position = _short("position", said.position, MAX_POSITION_BYTES)
    if said.chain not in {"", chain}:
        raise GRPCError(Status.INVALID_ARGUMENT, f"a message for the chain {said.chain[:100]!a} of a plugin for {chain}")
    if said.reorg is not None:
        return _reorg(frame, said.reorg, chain)
    if said.finalized is not None:
        frame.kind, frame.height = _abi.KIND_FINALIZED, said.finalized.height
        frame.hash = _id("hash", said.finalized.hash, needed=True)
        return frame
    if said.end_of_input is not None:
        frame.kind = _abi.KIND_END_OF_INPUT
        return frame
    if (
        said.batch is not None
        or _is_ignored(said)
        or any(each is not None for each in (said.log, said.metric, said.beat, said.submit, said.shutdown))
    ):
        raise GRPCError(Status.INVALID_ARGUMENT, "a batch holds blocks, reorg, finalized and end_of_input alone")
    if said.step is not proto.Step.NEW:
        raise GRPCError(Status.INVALID_ARGUMENT, "a plugin sends new blocks; what leaves the chain it says by reorg")
    frame.kind = _abi.KIND_BLOCK
    frame.height = said.height or None
    frame.final_height = said.final_height
    frame.hash, frame.parent = _id("hash", said.hash), _id("parent", said.parent)
    if said.weight:
        frame.weight = int.from_bytes(_short("weight", said.weight, MAX_WEIGHT_BYTES), "little")
    if said.timestamp is not None:
        frame.time = (said.timestamp - _EPOCH) // datetime.timedelta(microseconds=1) * 1_000
    return frame


def _reorg(frame: ReceivedFrame, said: proto.ReorgMessage, chain: str) -> ReceivedFrame:
    if said.chain not in {"", chain}:
        raise GRPCError(Status.INVALID_ARGUMENT, f"a reorg of the chain {said.chain[:100]!a} by a plugin for {chain}")
    if said.from_height < said.to_height:
        raise GRPCError(Status.INVALID_ARGUMENT, f"a reorg from height {said.from_height} up to {said.to_height}")
    frame.kind, frame.height, frame.to_height = _abi.KIND_REORG, said.from_height, said.to_height
    frame.orphans = [_id("orphan_block_hashes", each, needed=True) for each in said.orphan_block_hashes]
    if len(set(map(len, frame.orphans))) > 1:
        raise GRPCError(Status.INVALID_ARGUMENT, "orphan_block_hashes of different lengths")
    return frame


def _id(what: str, value: bytes, *, needed: bool = False) -> bytes:
    if needed and not value:
        raise GRPCError(Status.INVALID_ARGUMENT, f"{what} is missing")
    return _short(what, value, MAX_ID_BYTES)


def _short(what: str, value: bytes, most: int) -> bytes:
    if len(value) > most:
        raise GRPCError(Status.INVALID_ARGUMENT, f"{what} has {len(value)} bytes; at most {most}")
    return value
