"""``forks replay``: the format's own example, real sequences, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import supervm

EXAMPLE = """\
{"mode": "heaviest", "root": {"hash": "a0", "height": 10}, "final_depth": null, "orphans": 0}
{"hash": "b1", "parent": "a0", "height": 11, "weight": 2}
{"hash": "c2", "parent": "b9", "height": 12, "weight": 2, "final_height": 11}
{"final": {"hash": "b1", "height": 11}}
{"reorg": {"from_height": 12, "to_height": 11, "orphans": ["c2"]}}
{"restart": true}
{"hash": "d2", "parent": "b1", "height": 12, "weight": 3}
"""


def test_one_line_out_for_each_line_in(tmp_path: Path) -> None:
    file = tmp_path / "example.jsonl"
    file.write_text(EXAMPLE)
    ran = supervm("forks", "replay", file, "--json")
    assert ran.status == 0, ran.err
    b1 = {"hash": "b1", "height": 11}
    assert ran.lines() == [
        {"input": "b1", "verdict": "accepted", "events": [["new", "b1"]], "tip": b1},
        {"input": "c2", "verdict": "orphan", "events": [], "tip": b1},
        {"input": "final", "verdict": "accepted", "events": [["final", "b1"]], "tip": b1},
        {"input": "reorg", "verdict": "rejected", "reason": "not-canonical", "events": [], "tip": b1},
        {"input": "restart", "verdict": "accepted", "events": [], "tip": b1},
        {"input": "d2", "verdict": "accepted", "events": [["new", "d2"]], "tip": {"hash": "d2", "height": 12}},
    ]


def test_standard_input_and_plain_text() -> None:
    ran = supervm("forks", "replay", "-", stdin=EXAMPLE)
    assert ran.status == 0
    assert len(ran.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "lines", "says"),
    [
        ("", 0, "1"),
        ("nonsense\n", 0, "line 1"),
        ('{"mode": "sideways"}\n', 0, "sideways"),
        (EXAMPLE + "nonsense\n", 6, "line 8"),
        (EXAMPLE + "[1]\n", 6, "line 8"),
    ],
)
def test_what_cannot_be_read_ends_with_2_and_names_the_line(tmp_path: Path, text: str, lines: int, says: str) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text(text)
    ran = supervm("forks", "replay", file, "--json")
    assert ran.status == 2
    assert says in ran.err
    assert len(ran.out.splitlines()) == lines


def test_a_missing_file(tmp_path: Path) -> None:
    ran = supervm("forks", "replay", tmp_path / "none", "--json")
    assert ran.status == 2
    assert "cannot be read" in ran.err


def test_what_can_be_read_and_means_nothing_is_malformed(tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text(EXAMPLE.splitlines()[0] + "\n" + json.dumps({"hash": "b1", "height": True}) + "\n")
    ran = supervm("forks", "replay", file, "--json")
    assert ran.status == 0
    assert ran.json() == {
        "input": "b1",
        "verdict": "rejected",
        "reason": "malformed",
        "events": [],
        "tip": {"hash": "a0", "height": 10},
    }
