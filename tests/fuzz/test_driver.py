"""python -m fuzz: shares the time, says what was found, and ends what it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import fuzz.__main__ as driver
from fuzz.reorgs.placed import WAYS

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the real driver and campaigns that do as they are told."""
    package = tmp_path / "fuzz"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text((PROJECT / "fuzz" / "__main__.py").read_text())
    for name in driver.CAMPAIGNS:
        write(tmp_path, name, 'print(\'{"executions": 5, "failures": 0, "detail": "fine"}\')')
    return tmp_path


def write(project: Path, name: str, code: str) -> None:
    (project / "fuzz" / f"{name}.py").write_text(f"import os, sys, time\n{textwrap.dedent(code)}\n")


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=60)


def test_every_campaign_gets_its_share(project: Path) -> None:
    for name in driver.CAMPAIGNS:
        write(project, name, 'print(\'{"executions": 5, "failures": 0, "detail": "%s"}\' % \' \'.join(sys.argv[1:]))')
    done = run(project, "14", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((project / "build/fuzz.json").read_text())
    assert list(results) == list(driver.CAMPAIGNS)
    whole = sum(campaign.weight for campaign in driver.CAMPAIGNS.values())
    for name, result in results.items():
        campaign = driver.CAMPAIGNS[name]
        seconds = f"--seconds {14 * 60 * campaign.weight / whole:.1f}"
        assert result["detail"] == " ".join([*campaign.arguments, seconds, "--seed 7"])
        assert (result["executions"], result["failures"], result["seed"]) == (5, 0, 7)


def test_a_table_by_default_and_seeds_of_its_own(project: Path) -> None:
    done = run(project, "1", "--only", "ring", "manifest")
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["campaign", "seconds", "seed", "executions", "found", "detail"]
    assert [row.split()[0] for row in rows] == ["ring", "manifest"]
    assert rows[0].split()[2] != rows[1].split()[2]


def test_the_reorg_machine_is_played_in_every_way() -> None:
    over = {campaign.arguments for campaign in driver.CAMPAIGNS.values() if campaign.package == "reorgs"}
    assert over == {("--over", way) for way in WAYS}


def test_every_campaign_is_there() -> None:
    """And every package that is a campaign is played."""
    packages = {campaign.package or name for name, campaign in driver.CAMPAIGNS.items()}
    assert packages == {path.parent.name for path in (PROJECT / "fuzz").glob("*/__main__.py")}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ('print(\'seed 5 broke it\'); print(\'{"executions": 5, "failures": 2, "detail": "seed 5"}\'); sys.exit(1)', "seed 5"),
        ("os.abort()", "ended with status -6 and no result"),
        ("raise ValueError", "ended with status 1 and no result"),
        ('print(\'{"executions": 5, "failures": 0}\'); sys.exit(1)', "ended with status 1 and no result"),
        ("", "ended with status 0 and no result"),
    ],
)
def test_a_finding_is_shown_and_the_others_go_on(project: Path, code: str, says: str) -> None:
    write(project, "bitcoin", code)
    done = run(project, "1")
    assert done.returncode == 1
    assert "bitcoin found something" in done.stderr
    results = json.loads((project / "build/fuzz.json").read_text())
    assert results["bitcoin"]["detail"] == says
    assert [name for name, result in results.items() if result["failures"]] == ["bitcoin"]
    assert len(results) == len(driver.CAMPAIGNS)


@pytest.mark.parametrize(
    "arguments", [(), ("0",), ("-1",), ("nan",), ("much",), ("1", "--only", "nothing"), ("1", "--seed", "x")]
)
def test_wrong_usage(project: Path, arguments: tuple[str, ...]) -> None:
    done = run(project, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_campaign_that_is_not_there(project: Path) -> None:
    (project / "fuzz" / "ring.py").unlink()
    done = run(project, "1")
    assert done.returncode == 2
    assert "there is no campaign ring" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_started_ends_with_it(project: Path, number: signal.Signals) -> None:
    write(
        project,
        "reorgs",
        """
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open("pids", "w") as file:
            file.write(f"{os.getpid()} {child.pid} ")
        time.sleep(600)
        """,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "9"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = project / "pids"
    deadline = time.monotonic() + 60
    while not (pids.exists() and pids.read_text().endswith(" ")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    for pid in map(int, pids.read_text().split()):
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                break
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break  # it has ended; whoever inherited it has not looked yet
            time.sleep(0.01)
        else:
            pytest.fail(f"process {pid} still runs")
