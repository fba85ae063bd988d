"""Bounds of the configuration that cannot be, and the largest that can."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.remote.limits import MOST_STREAMS, RemoteLimits
from tests.cli.support import supervm
from tests.remote.support import peer, serving


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("streams: 4097", "the remote limit streams is 4097; at most 4096 calls go over one connection"),
        ("streams: 4294967296", "at most 4096 calls go over one connection"),
        ("streams: 0", "remote.streams"),
        ("streams: many", "remote.streams"),
        ("message: 4GiB", "a gRPC message has less than 4 GiB"),
        ("stalled: 0s", "remote.stalled: '0s' is no time at all"),
        ("windows: 3", "remote"),
    ],
)
def test_a_bound_that_cannot_be_is_named(tmp_path: Path, said: str, why: str) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(f"store: s.db\npolicy: dev\nlisten: [{{unix: s}}]\nremote: {{{said}}}\n")
    ran = supervm("run", config)
    assert ran.status == 2
    assert why in ran.err
    assert str(config) in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "s.db").exists()


def test_more_calls_than_a_connection_can_have_are_refused_to_a_program_too() -> None:
    with pytest.raises(ConfigurationError, match="opens a further connection"):
        RemoteLimits(streams=MOST_STREAMS + 1)


def test_the_most_calls_that_can_be_allowed_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=RemoteLimits(streams=MOST_STREAMS)) as node, peer(node.path) as raw:
            assert (await raw.call("Health", b"")).status == 0
            assert raw.http.remote_settings.max_concurrent_streams == MOST_STREAMS

    trio.run(main)
