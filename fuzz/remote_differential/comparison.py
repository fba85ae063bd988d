"""Whether the decoder says of a message what Google's protobuf and the rules in ``reference`` say."""

from __future__ import annotations

import re
from typing import Any

from fuzz.remote_differential import reference
from fuzz.remote_differential.reference import BlockMessage, NoMessage, NotAllowed, Said
from supervm_rt._abi import Frame
from supervm_rt.errors import MessageRefused
from supervm_rt.transports.remote._frames import hear

GENERATION = 7
NO_MESSAGE = "the bytes are no BlockMessage"


def said_by(frame: Frame) -> Said:
    """What a frame says."""
    assert frame.generation == GENERATION
    payload = bytes(frame)
    assert len(frame) == len(payload)
    assert bytes(memoryview(frame)) == payload
    return Said(
        frame.kind,
        payload,
        frame.position,
        height=frame.height,
        final_height=frame.final_height,
        time=frame.time,
        hash=frame.hash,
        parent=frame.parent,
        weight=frame.weight,
        to_height=frame.to_height,
        orphans=tuple(frame.orphans),
    )


def _is_field_0(data: bytes, refusal: str) -> bool:
    """Whether it was refused for a field of number 0. upb refuses that too, but not inside a group that it skips."""
    found = re.search(r"no field begins like this \(byte (\d+)\)", refusal)
    if found is None:
        return False
    tag = data[: int(found[1])][-5:]
    return any(
        all(byte & 0x78 == 0 if number == 0 else byte & 0x7F == 0 for number, byte in enumerate(tag[begin:]))
        for begin in range(len(tag))
    )


def compare(data: bytes, chain: str | None) -> str:
    """Raises AssertionError where they differ. Answers what it was: ``frames``, ``other``, ``not allowed``, ``no message``."""
    try:
        wanted: Any = reference.meaning(data, chain)
    except (NoMessage, NotAllowed) as refused:
        wanted = refused
    named = None if chain is None else chain.encode()
    refusal = None
    try:
        frames, other = hear(data, generation=GENERATION, chain=named)
    except MessageRefused as refused:
        refusal = refused.message
    if refusal is not None:
        # Of a batch the decoder may meet what is not allowed before it meets what is no message.
        if isinstance(wanted, NoMessage):
            return "no message"
        if refusal.startswith(NO_MESSAGE):
            assert _is_field_0(data, refusal), (refusal, wanted)
            return "no message"
        assert isinstance(wanted, NotAllowed), (refusal, wanted)
        return "not allowed"
    assert not isinstance(wanted, NoMessage | NotAllowed), wanted
    if isinstance(wanted, list):
        assert other is None
        assert [said_by(frame) for frame in frames] == wanted
        return "frames"
    number, body = wanted
    assert other is not None
    assert frames == []
    assert other[0] == number
    again = type(body).FromString(other[1])
    assert again.SerializeToString(deterministic=True) == body.SerializeToString(deterministic=True)
    return "other"


def all_ways(data: bytes) -> str:
    """Compares with each chain that matters."""
    found = {compare(data, chain) for chain in (None, "bitcoin")}
    # The same bytes in a buffer of another kind, and behind others.
    behind = memoryview(b"\xff" + data)[1:]
    try:
        frames, other = hear(behind, generation=GENERATION)
    except MessageRefused:
        assert found & {"no message", "not allowed"}
    else:
        assert compare(data, None) in {"frames", "other"}
        del behind
        for frame in frames:
            said_by(frame)
        assert other is None or not frames
    return min(found)


__all__ = ["BlockMessage", "all_ways", "compare", "said_by"]
