"""Real kills: consumers and the host, at any moment; see ``killed``. More of them: ``python -m tests.feed.killed``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.feed.killed import KEPT
from tests.store.support import environment


@pytest.mark.parametrize(
    ("source", "what", "kills"),
    [
        ("sample", "consumers", 150),
        ("random", "consumers", 150),
        ("sample", "host", 60),
        ("random", "host", 60),
        ("random", "pruning", 60),
    ],
)
def test_kills_at_any_moment_neither_lose_nor_double_an_event(tmp_path: Path, source: str, what: str, kills: int) -> None:
    command = [sys.executable, "-m", "tests.feed.killed", str(tmp_path), source, what, str(kills), "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert f"killed {kills};" in done.stdout
    assert done.stdout.endswith("each consumer holds exactly the log\n")
    if what == "pruning":
        amidst, worked = map(int, re.findall(r"(\d+) of them while events were deleted, (\d+) cursors", done.stdout)[0])
        assert amidst >= kills // 4
        assert worked >= KEPT
