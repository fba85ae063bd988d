"""What a plugin says on its exchange, read: frames, as every transport gives them, and all else."""

from __future__ import annotations

from typing import Any, TypeAlias

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt._abi import Frame
from supervm_rt.errors import MessageRefused
from supervm_rt.transports.remote import _frames
from supervm_rt.transports.remote.fields import check, metadata
from supervm_rt.transports.remote.messages import Buffer
from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto

Said: TypeAlias = proto.Log | proto.Metric | proto.Beat | proto.SubmitTxRequest | proto.Shutdown | None

_FIELDS = metadata(proto.BlockMessage).meta_by_field_name
_HEARD: dict[int, tuple[str, Any]] = {
    _FIELDS[name].number: (name, kind)
    for name, kind in (
        ("log", proto.Log),
        ("metric", proto.Metric),
        ("beat", proto.Beat),
        ("submit", proto.SubmitTxRequest),
        ("shutdown", proto.Shutdown),
    )
}
"""What is neither a frame nor an answer, of which this version asks for none."""


def hear(message: Buffer, chain: bytes, generation: int) -> tuple[list[Frame], Said]:
    """Frames, or what else was said; None: nothing that is of use. Raises GRPCError for what the contract does not allow."""
    try:
        frames, body = _frames.hear(message, generation=generation, chain=chain)
    except MessageRefused as refused:
        raise GRPCError(Status.INVALID_ARGUMENT, str(refused)) from None
    if body is None or body[0] not in _HEARD:
        return frames, None
    name, kind = _HEARD[body[0]]
    try:
        check(body[1], kind)
        return [], kind.FromString(body[1])
    except Exception as error:  # the library has no error of its own for most of it
        raise GRPCError(Status.INVALID_ARGUMENT, f"{name} is not as it should be ({error or type(error).__name__})") from None
