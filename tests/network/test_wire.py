"""Whatever bytes come from a plugin's end are a request or are refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervm_rt.transports.network.wire import REQUEST, Kind, Request, WireBroken, parse_request

FIELDS = st.tuples(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 6),
    st.integers(0, 3),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 300),
    st.integers(0, 1),
    st.binary(max_size=256),
)


@given(st.binary(max_size=400) | FIELDS.map(lambda fields: REQUEST.pack(*fields)))
def test_any_packet_is_a_request_or_broken(data: bytes) -> None:
    try:
        request = parse_request(data, 60.0)
    except WireBroken as error:
        assert str(error)
        return
    assert isinstance(request, Request)
    assert request.id
    assert len(request.name) <= 253
    assert 0 <= request.port < 2**16
    if request.timeout is None:
        assert request.kind is Kind.ACCEPT
    else:
        assert 0 <= request.timeout <= (60 if request.kind is Kind.CONNECT else 2**31)
