"""Each thread gets the answer to its own request, whatever the host does: no data race, no leak, no descriptor left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.harness import ADDRESS, THREAD, build, run

ROUNDS = 40


@pytest.mark.parametrize("sanitize", [THREAD, ADDRESS])
def test_answers_find_their_threads(tmp_path: Path, sanitize: str) -> None:
    counted, complaint = run(build(sanitize, tmp_path, "network_threads"), ROUNDS, 1)
    assert not complaint
    assert all(counted.values()), counted
