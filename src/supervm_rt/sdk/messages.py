"""What a plugin says on its BlockExchange, encoded: blocks by hand, since there are many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervm_rt.transports.remote.fields import check, metadata
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.wire import NO_ROUTE, REVISION

if TYPE_CHECKING:
    from supervm_rt.sdk.connection import Description

__all__ = [
    "batch",
    "beat",
    "block",
    "end_of_input",
    "finalized",
    "hear",
    "log",
    "metric",
    "register",
    "reorg",
    "shutdown",
    "submit",
]

METHOD_NOT_FOUND = -32_601
"""As JSON-RPC 2.0 has it."""

EARLIEST = -9_223_372_036 * 10**9
LATEST = 2**63 - 1
"""What the host reads as a time, in nanoseconds since 1970: one whose seconds fit, as nanoseconds, into 64 bits."""

_NUMBERS = {name: meta.number for name, meta in metadata(proto.BlockMessage).meta_by_field_name.items()}
_VARINT = (1 << 64) - 1
_BLOCKS = metadata(proto.Batch).meta_by_field_name["blocks"].number


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: str, value: int) -> bytes:
    return _varint(_NUMBERS[field] << 3) + _varint(value)


def _bytes(field: str, value: bytes | memoryview) -> bytes:
    return b"".join((_varint(_NUMBERS[field] << 3 | 2), _varint(len(value)), value)) if len(value) else b""


def _time(nanoseconds: int) -> bytes:
    """Present also where it is 0, which is a time and not its absence."""
    if not EARLIEST <= nanoseconds <= LATEST:
        raise ValueError(f"a block's time is in nanoseconds since 1970-01-01, from {EARLIEST} to {LATEST}, and not {nanoseconds}")
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    said = b"".join(_varint(number << 3) + _varint(value & _VARINT) for number, value in ((1, seconds), (2, nanos)) if value)
    return _varint(_NUMBERS["timestamp"] << 3 | 2) + _varint(len(said)) + said


def block(
    chain: str,
    raw: bytes | memoryview,
    *,
    height: int | None,
    hash: bytes,  # noqa: A002 - the field's name
    parent: bytes,
    position: bytes,
    final_height: int | None,
    weight: int | None,
    time: int | None,
) -> bytes:
    """One block; ``time`` in nanoseconds. Raises ValueError for one that no block can have."""
    parts = [_bytes("chain", chain.encode())]
    if height is not None:
        parts.append(_number("height", height) if height else _number("genesis", 1))
    parts += (_bytes("block_bytes", raw), _bytes("hash", hash), _bytes("parent", parent), _bytes("position", position))
    if time is not None:
        parts.append(_time(time))
    if final_height is not None:
        parts.append(_number("final_height", final_height))
    if weight is not None:
        parts.append(_bytes("weight", weight.to_bytes(max(1, (weight.bit_length() + 7) // 8), "little")))
    return b"".join(parts)


def batch(messages: Sequence[bytes]) -> bytes:
    """Several messages in one."""
    key = _varint(_BLOCKS << 3 | 2)
    return _bytes("batch", b"".join(part for message in messages for part in (key, _varint(len(message)), message)))


RegisterResponse = proto.RegisterResponse


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a transaction."""

    accepted: bool
    """The network's node took it."""
    tx_hash: str
    """As the chain prints it, where it was accepted."""
    error: str
    """For a person: why it was not."""
    status: int
    """A number of supervm/status.h: 0, or why it went no further than the host (-5: no plugin serves the chain)."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the host said."""

    position: bytes | None = None
    credit: int = 0
    stop: bool = False
    submitted: tuple[int, Submitted] | None = None
    """An answer, and the number of its question."""
    answer: bytes | None = None
    """What has to be said to a question: this kit serves none."""


def hear(message: bytes) -> Heard:
    """One message of the host's; what is not known says nothing. Raises ValueError for what is no message."""
    try:
        check(message, proto.BlockMessage)
        said = proto.BlockMessage.FromString(message)
    except Exception as error:  # the library has no error of its own for most of it
        raise ValueError(f"the host sent what is no BlockMessage ({error or type(error).__name__})") from None
    result = said.submitted
    return Heard(
        submitted=None
        if result is None
        else (result.id, Submitted(result.accepted, result.tx_hash, result.error, result.status)),
        answer=_not_served(said),
        position=said.acknowledge.position if said.acknowledge is not None else None,
        credit=said.credit.bytes if said.credit is not None else 0,
        stop=said.stop is not None,
    )


def _not_served(said: proto.BlockMessage) -> bytes | None:
    """The answer to a question of the host; None: it is none, or wants none."""
    if said.submit is not None:
        why = "this plugin hands on no transactions"
        return bytes(proto.BlockMessage(submitted=proto.SubmitTxResponse(id=said.submit.id, error=why, status=NO_ROUTE)))
    if said.rpc_request is not None:
        error = proto.RpcError(code=METHOD_NOT_FOUND, message="this plugin serves no calls of the chain's RPC interface")
        return bytes(proto.BlockMessage(rpc_answer=proto.RpcAnswer(id=said.rpc_request.id, error=error)))
    if said.archive_request is not None:
        why = "this plugin serves no blocks of the past"
        return bytes(proto.BlockMessage(archive_answer=proto.ArchiveAnswer(id=said.archive_request.id, last=True, error=why)))
    return None


def submit(chain: str, tx: bytes, number: int) -> bytes:
    """A transaction for the host to hand on."""
    return bytes(proto.BlockMessage(submit=proto.SubmitTxRequest(chain=chain, tx=tx, id=number)))


def register(description: Description) -> proto.RegisterRequest:
    """The first call."""
    return proto.RegisterRequest(
        name=description.name,
        version=description.version,
        chain=description.chain,
        capabilities=list(description.capabilities),
        manifest_json=description.manifest,
        revision=REVISION,
    )


def reorg(chain: str, from_height: int, to_height: int, orphans: Sequence[bytes], position: bytes) -> bytes:
    """Blocks leave the chain."""
    said = proto.ReorgMessage(chain=chain, from_height=from_height, to_height=to_height, orphan_block_hashes=list(orphans))
    return bytes(proto.BlockMessage(chain=chain, position=position, reorg=said))


def finalized(chain: str, height: int, hash: bytes, position: bytes) -> bytes:  # noqa: A002 - the field's name
    """A block is final."""
    return bytes(proto.BlockMessage(chain=chain, position=position, finalized=proto.Finalized(height=height, hash=hash)))


def end_of_input(chain: str, position: bytes) -> bytes:
    """There is nothing more for now."""
    return bytes(proto.BlockMessage(chain=chain, position=position, end_of_input=proto.EndOfInput()))


def log(level: int, text: str) -> bytes:
    """A line for the host's log."""
    return bytes(proto.BlockMessage(log=proto.Log(level=level, text=text)))


def metric(name: str, value: float) -> bytes:
    """A sample of a metric."""
    return bytes(proto.BlockMessage(metric=proto.Metric(name=name, value=value)))


def shutdown(reason: int) -> bytes:
    """The plugin asks to be ended."""
    return bytes(proto.BlockMessage(shutdown=proto.Shutdown(reason=reason)))


def beat() -> bytes:
    """A sign of life."""
    return bytes(proto.BlockMessage(beat=proto.Beat()))
