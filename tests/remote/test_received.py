"""What a plugin says beside its blocks: any bytes are read as Google's protobuf reads them, or refused by name."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt.transports.remote.messages_generated.supervm import plugin as proto
from supervm_rt.transports.remote.received import hear
from supervm_rt.transports.remote.service import Codec
from tests.remote.messages import field, varint

FIXED_64, FIXED_32 = 1, 5
MOST_FIELDS = 4096
LOG, METRIC, BEAT, SUBMIT, SHUTDOWN = 24, 25, 26, 27, 29


def fixed(number: int, kind: int) -> bytes:
    return varint(number << 3 | kind) + bytes(8 if kind == FIXED_64 else 4)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (LOG, field(1, b"abc")),
        (LOG, field(1, b"\xff")),
        (LOG, field(2, 5)),
        (LOG, fixed(2, FIXED_64)),
        (METRIC, field(1, 5)),
        (METRIC, field(2, 5)),
        (METRIC, field(2, b"abc")),
        (METRIC, fixed(2, FIXED_32)),
        (SUBMIT, field(1, 5)),
        (SUBMIT, field(2, 5)),
        (SUBMIT, fixed(3, FIXED_32)),
        (SHUTDOWN, field(1, b"abc")),
        (SHUTDOWN, fixed(1, FIXED_64)),
    ],
)
def test_a_field_of_another_type_is_refused(body: int, content: bytes) -> None:
    with pytest.raises(GRPCError) as refused:
        hear(field(body, content), b"dev", 1)
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert refused.value.message


@pytest.mark.parametrize("body", [LOG, METRIC, BEAT, SUBMIT, SHUTDOWN])
@pytest.mark.parametrize("content", [field(900, 1), field(900, b"\xff"), fixed(900, FIXED_32), fixed(900, FIXED_64)])
def test_unknown_fields_are_skipped(body: int, content: bytes) -> None:
    assert hear(field(body, content), b"dev", 1) == hear(field(body, b""), b"dev", 1)


@pytest.mark.parametrize("content", [field(900, b""), field(2, b""), field(1, 0)])
def test_more_fields_than_a_message_needs_are_refused(content: bytes) -> None:
    """Each costs time that the whole node waits for."""
    assert hear(field(LOG, content * MOST_FIELDS), b"dev", 1)
    with pytest.raises(GRPCError, match=r"more than 4096 fields"):
        hear(field(LOG, content * (MOST_FIELDS + 1)), b"dev", 1)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (proto.RegisterRequest, field(900, b"") * (MOST_FIELDS + 1)),
        (proto.RegisterRequest, field(4, b"") * (MOST_FIELDS + 1)),
        (proto.HealthRequest, field(1, 0) * (MOST_FIELDS + 1)),
        (proto.StreamBlocksRequest, field(7, 0) * (MOST_FIELDS + 1)),
        (proto.StreamBlocksRequest, field(7, bytes(MOST_FIELDS + 1))),
    ],
)
def test_in_requests_too(kind: type[object], content: bytes) -> None:
    with pytest.raises(GRPCError, match=r"more than 4096 fields") as refused:
        Codec().decode(content, kind)
    assert refused.value.status is Status.INVALID_ARGUMENT
