"""What all byte fuzzers promise whoever runs them: a line of JSON, a status, the input that failed. The engine is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fuzz import campaign as campaigns
from fuzz.campaign import Campaign, CampaignError, main
from fuzz.native import Harness, build

ENGINE = """
import pathlib, sys
words = [word for word in sys.argv[1:] if not word.startswith("-")]
flags = dict(word[1:].split("=", 1) for word in sys.argv[1:] if word.startswith("-"))
pathlib.Path("asked").write_text(repr(flags))
paths = [pathlib.Path(word) for word in words]
inputs = [path for one in paths for path in ([one] if one.is_file() else one.iterdir())]
print("#7\\tINITED cov: 5 ft: 6")
for path in inputs:
    if path.read_bytes() == b"bad":
        if "artifact_prefix" in flags:
            target = flags["artifact_prefix"] + "crash-1"
            pathlib.Path(target).write_bytes(b"bad")
            print("Test unit written to", target)
        print("what was wrong")
        sys.exit(77)
    if path.read_bytes() == b"worse":
        sys.exit(1)
print("stat::number_of_executed_units: 1234")
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(campaigns, "ROOT", tmp_path)
    (tmp_path / "engine.py").write_text(ENGINE)


def _campaign(**seeds: bytes) -> Campaign:
    return Campaign("some", lambda: [sys.executable, "engine.py"], lambda: seeds, max_length=99)


def _said(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    captured = capsys.readouterr()
    return json.loads(captured.out.splitlines()[-1]), captured.err


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"good"), ["--seconds", "3", "--seed", "4"]) == 0
    said, error = _said(capsys)
    assert (said["executions"], said["failures"], error) == (1234, 0, "")
    assert "seed 4" in str(said["detail"])
    asked = Path("asked").read_text()
    assert "'max_total_time': '3'" in asked
    assert "'seed': '5'" in asked
    assert "'max_len': '99'" in asked
    assert "runs" not in asked


def test_executions_take_the_place_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"good"), ["--executions", "10"]) == 0
    asked = Path("asked").read_text()
    assert "'runs': '10'" in asked
    assert "max_total_time" not in asked


def test_a_failure_is_kept_and_says_how_to_see_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"bad"), []) == 1
    said, error = _said(capsys)
    assert (said["executions"], said["failures"]) == (7, 1)
    assert "what was wrong" in error
    assert "again: python -m fuzz.some --input build/fuzz/failures/some/crash-1" in error

    assert main(_campaign(), ["--input", "build/fuzz/failures/some/crash-1"]) == 1
    assert _said(capsys)[0]["failures"] == 1
    Path("fine").write_bytes(b"good")
    assert main(_campaign(), ["--input", "fine"]) == 0


def test_the_same_failure_again_is_a_failure_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"bad"), []) == 1
    assert main(_campaign(a=b"bad"), []) == 1
    assert "crash-1" in str(_said(capsys)[0]["detail"])


def test_the_corpus_is_kept_and_the_seeds_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"good", b=b"good"), []) == 0
    Path("build/fuzz/corpus/some/found").write_bytes(b"x")
    assert main(_campaign(a=b"good"), []) == 0
    assert Path("build/fuzz/corpus/some/found").exists()
    assert [path.name for path in Path("build/fuzz/some/seeds").iterdir()] == ["a"]


@pytest.mark.parametrize("arguments", [["--seconds", "x"], ["--seconds", "0"], ["--executions", "-1"], ["--what"]])
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(_campaign(), arguments)
    assert ended.value.code == 2


def test_an_input_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(), ["--input", "absent"]) == 2
    assert capsys.readouterr().err == "fuzz.some: absent is not a file\n"


def test_an_engine_that_breaks_without_an_input_is_no_failure_of_the_product(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_campaign(a=b"worse"), []) == 2
    assert "status 1" in capsys.readouterr().err


def test_a_machine_without_clang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CampaignError, match=r"clang is not installed: run tools/prepare-machine"):
        build(Harness("some", sources=()))
