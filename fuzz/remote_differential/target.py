"""Invariant: as in ``comparison``. One input: a message, which is also tried in a batch, before another body and as a reorg."""

from __future__ import annotations

import atheris

with atheris.instrument_imports(include=["fuzz.remote_differential"], enable_loader_override=False):
    from fuzz.remote_differential.comparison import all_ways
    from fuzz.remote_differential.wire import field

from fuzz import python


def test(data: bytes) -> None:
    """One input."""
    all_ways(data)
    all_ways(field(23, field(1, data)))
    all_ways(field(23, field(1, data)) + field(22, b""))
    all_ways(field(20, data))


if __name__ == "__main__":
    python.run(test)
