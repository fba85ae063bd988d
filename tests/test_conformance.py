"""docs/conformance.md stays true: what it names exists, and what has no test is not called done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs/conformance.md").read_text().splitlines()
    if re.match(r"\| [A-Z]+[0-9]+ \|", line)
]


def test_there_is_one_row_for_each_clause() -> None:
    names = [row[0] for row in ROWS]
    assert len(names) == len(set(names))
    assert len(names) == 45


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_code_and_tests_that_exist(row: list[str]) -> None:
    _, _, code, tests = row
    for name in re.findall(r"`([\w./-]+)`", code):
        assert any((folder / name).exists() for folder in (ROOT / "src/supervm_rt", ROOT)) or "not yet" in code, name
    last: Path | None = None
    for file, test in re.findall(r"`([\w/]+\.py|[\w/]+/)?(?:::(\w+))?`", tests):
        if file:
            last = ROOT / "tests" / file
            assert last.exists(), file
        if test:
            assert last is not None
            assert re.search(rf"(def|class) {test}\b", last.read_text()), test
    assert re.search(r"`[\w/]+(\.py|/)", tests) or "not yet" in tests or "see there" in tests
