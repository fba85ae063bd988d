"""Real kills: consumers and the host, at any moment; see ``killed``. A thousand of each kind: ``make test-nodes``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.feed.killed import CONSUMERS, KEPT
from tests.feed.support import Drawn, drawn_trees
from tests.store.support import environment


def run(command: list[str], kills: int, seconds: float) -> str:
    """What it said."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    assert f"killed {kills};" in done.stdout
    assert done.stdout.endswith("each consumer holds exactly the log\n")
    return done.stdout


@pytest.mark.parametrize(
    ("source", "what", "kills"),
    [
        ("sample", "consumers", 150),
        ("random", "consumers", 150),
        ("sample", "host", 60),
        ("random", "host", 60),
        ("random", "pruning", 60),
        *(
            pytest.param(source, what, 1000, marks=[pytest.mark.nodes, pytest.mark.timeout(400)])
            for what in ("consumers", "host")
            for source in ("sample", "random")
        ),
    ],
)
def test_kills_at_any_moment_neither_lose_nor_double_an_event(tmp_path: Path, source: str, what: str, kills: int) -> None:
    command = [sys.executable, "-m", "tests.feed.killed", str(tmp_path), source, what, str(kills), "1"]
    said = run(command, kills, 110 if kills < 1000 else 390)
    if what == "pruning":
        amidst, worked = map(int, re.findall(r"(\d+) of them while events were deleted, (\d+) cursors", said)[0])
        assert amidst >= kills // 4
        assert worked >= KEPT


@pytest.mark.parametrize("what", ["consumers", "host"])
@settings(max_examples=5, phases=[Phase.explicit, Phase.generate])
@given(
    tree=drawn_trees(60),
    kills=st.lists(st.tuples(st.floats(0, 1), st.integers(0, CONSUMERS - 1)), min_size=20, max_size=20),
)
def test_kills_at_any_moment_in_any_tree(
    tmp_path_factory: pytest.TempPathFactory, what: str, tree: Drawn, kills: list[tuple[float, int]]
) -> None:
    """The tree and the moments are chosen by hypothesis. What processes do is not the same each time, so nothing is shortened."""
    folder = tmp_path_factory.mktemp("drawn")
    source = folder / "drawn.json"
    source.write_text(json.dumps({"blocks": tree.blocks, "kills": kills}))
    run([sys.executable, "-m", "tests.feed.killed", str(folder), str(source), what, str(len(kills)), "1"], len(kills), 60)
