"""The driver of the deliberate faults, on a project of two files: what is caught, what is not, and what is left as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults.__main__ import gather, main
from faults.fault import Fault

ROOT = Path(__file__).parents[2]
CODE = "def double(number: int) -> int:\n    return 2 * number\n"
TEST = (
    "import code_under_test\n"
    "def test_two():\n"
    "    assert code_under_test.double(2) == 4\n"
    "def test_three():\n"
    "    assert code_under_test.double(3) == 6\n"
    "def test_broken():\n"
    "    assert False\n"
)
TWO = ("pytest", "test_code.py::test_two")
BOTH = ("pytest", "test_code.py::test_two", "test_code.py::test_three")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/code_under_test.py").write_text(CODE)
    (tmp_path / "test_code.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 60\n")
    return tmp_path


def fault(new: str = "return 3 * number", caught_by: tuple[str, ...] = BOTH, old: str = "return 2 * number") -> Fault:
    return Fault("wrong-factor", "it triples", "src/code_under_test.py", old, new, caught_by)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of the project but what the driver makes."""
    found = [
        path for path in folder.rglob("*") if path.is_file() and "build" not in path.parts and "__pycache__" not in path.parts
    ]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def copied(folder: Path) -> str:
    return (folder / "build/faults/tree/src/code_under_test.py").read_text()


def test_a_fault_that_a_test_notices_is_caught_by_its_name(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    assert main([], root=project, table=[fault()]) == 0
    said = capsys.readouterr().out
    assert "test_code.py::test_two" in said
    assert "1 of 1 faults were caught" in said
    assert files(project) == before
    assert copied(project) == CODE


def test_a_fault_that_no_test_notices_fails_the_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    unnoticed = fault("return number + 2", TWO)
    assert main([], root=project, table=[fault(), Fault("unnoticed", *_rest(unnoticed))]) == 1
    said = capsys.readouterr().out
    assert "NOT CAUGHT: pytest test_code.py::test_two passes" in said
    assert "1 of 2 faults were caught" in said
    assert files(project) == before
    assert copied(project) == CODE


def _rest(one: Fault) -> tuple[str, str, str, str, tuple[str, ...]]:
    return one.meaning, one.file, one.old, one.new, one.caught_by


@pytest.mark.parametrize(
    ("old", "file", "says"),
    [
        ("return 4 * number", "src/code_under_test.py", "wrong-factor: the text 'return 4 * number' occurs 0 times"),
        ("number", "src/code_under_test.py", "wrong-factor: the text 'number' occurs 2 times"),
        ("return 2 * number", "src/gone.py", "wrong-factor: there is no file src/gone.py"),
        ("return 3 * number", "src/code_under_test.py", "occurs 0 times"),
    ],
)
def test_a_fault_that_does_not_fit_the_code_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], old: str, file: str, says: str
) -> None:
    stale = Fault("wrong-factor", "it triples", file, old, "return 3 * number", BOTH)
    assert main([], root=project, table=[stale]) == 1
    assert says in capsys.readouterr().err
    assert not (project / "build").exists()


def test_two_faults_of_one_name_are_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], root=project, table=[fault(), fault()]) == 1
    assert "wrong-factor: 2 faults have this name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("new", "caught_by", "why"),
    [
        pytest.param("return (", BOTH, "not as a test fails", id="a syntax error is no failed test"),
        pytest.param("import os; os._exit(1)", BOTH, "not as a test fails", id="nor is a process that dies"),
        pytest.param("return 3 * number", ("pytest", "test_code.py::test_broken"), "without the fault it fails", id="control"),
        pytest.param("return 3 * number", ("pytest", "test_code.py::test_gone"), "without the fault it ended", id="no such test"),
    ],
)
def test_only_a_failed_test_counts(
    project: Path, capsys: pytest.CaptureFixture[str], new: str, caught_by: tuple[str, ...], why: str
) -> None:
    assert main([], root=project, table=[fault(new, caught_by)]) == 1
    said = capsys.readouterr().out
    assert "NOT CAUGHT" in said
    assert why in said
    assert copied(project) == CODE


@pytest.mark.parametrize(
    ("says", "status", "expected"),
    [
        ('{"executions": 5, "failures": 1, "detail": "a crash"}', 1, 0),
        ('{"executions": 5, "failures": 0, "detail": ""}', 0, 1),
        ("Traceback", 1, 1),
    ],
)
def test_a_campaign_says_itself_what_it_found(project: Path, says: str, status: int, expected: int) -> None:
    (project / "campaign.py").write_text(
        "import sys, code_under_test\n"
        "if code_under_test.double(2) == 4:\n"
        '    print(\'{"executions": 5, "failures": 0, "detail": ""}\')\n'
        "else:\n"
        f"    print({says!r})\n"
        f"    sys.exit({status})\n"
    )
    assert main([], root=project, table=[fault(caught_by=("campaign",))]) == expected


def test_results_can_be_read_by_a_program(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "--only", "wrong-factor"], root=project, table=[fault()]) == 0
    [result] = json.loads(capsys.readouterr().out)
    assert result["fault"] == "wrong-factor"
    assert result["caught"] is True
    assert result["by"].endswith("test_two")


def test_unknown_names_are_wrong_usage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "no-such"], root=project, table=[fault()])
    assert ended.value.code == 2
    assert "no such fault: no-such" in capsys.readouterr().err


def test_a_run_that_was_killed_half_way_leaves_no_fault_behind(project: Path) -> None:
    (project / "test_code.py").write_text(
        "import os, signal, code_under_test\n"
        "def test_two():\n"
        "    if code_under_test.double(2) != 4:\n"
        "        os.kill(int(os.environ['DRIVER']), signal.SIGKILL)\n"
        "        raise AssertionError\n"
    )
    script = (
        "import os, pathlib, sys\n"
        "from faults.__main__ import main\n"
        "from faults.fault import Fault\n"
        "os.environ['DRIVER'] = str(os.getpid())\n"
        f"main([], root=pathlib.Path(sys.argv[1]), table=[Fault('wrong-factor', *{_rest(fault(caught_by=TWO))!r})])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.run([sys.executable, "-c", script, project], env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert copied(project) != CODE
    (project / "test_code.py").write_text(TEST)
    assert main([], root=project, table=[fault()]) == 0
    assert copied(project) == CODE


def test_every_fault_of_the_project_fits_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    table = gather()
    assert len({one.name for one in table}) == len(table) >= 80
    for one in table:
        assert (ROOT / one.file).read_text().count(one.old) == 1, one.name
        assert one.new != one.old
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(table)
