"""Runs the command that has to notice a fault, and judges how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

DEADLINE_SECONDS = 180.0
"""For a whole run of pytest. A test that hangs has to be failed by its own timeout, well before."""
CAMPAIGN_SECONDS = 600.0
"""For anything else: a campaign says itself how long it takes; a sanitizer's build takes its time."""
TEST_SECONDS = 30
PYTEST_OPTIONS = (
    "--quiet",
    "--exitfirst",
    "--hypothesis-seed=0",
    "-p",
    "no:cacheprovider",
    "-o",
    f"timeout={TEST_SECONDS}",
)


SANITIZED = re.compile(r"extension: pytest ended with status (-?[0-9]+); ([0-9]+) processes had something reported")


@dataclass(frozen=True, slots=True)
class Trial:
    """How one run of a command ended."""

    status: str
    """``passed``, ``failed`` (as a test fails), ``hung``, or ``broken``: it ended in any other way."""
    by: str
    """The test that failed, or what failed it; empty where nothing did."""
    seconds: float
    output: str
    """The end of what it printed."""


def run(command: tuple[str, ...], tree: Path, *, bytecode: bool = False) -> Trial:
    """Runs ``python -m command`` in the tree, against its sources. ``bytecode``: may be written, because the tree is sound."""
    is_pytest = command[0] == "pytest"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree / "src"), str(tree)])}
    if not bytecode:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory(prefix="supervm-fault-") as folder:
        Path(folder).chmod(0o755)  # some tests run processes of other users
        report = Path(folder, "report.xml")
        options = (*PYTEST_OPTIONS, f"--junitxml={report}") if is_pytest else ()
        output = Path(folder, "output")
        begun = time.monotonic()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, *options],
                cwd=tree,
                env=environment | {"TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(DEADLINE_SECONDS if is_pytest else CAMPAIGN_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_group(process)
        seconds = time.monotonic() - begun
        said = output.read_text(encoding="utf-8", errors="replace")
        # What a fault taught hypothesis must not help against the next one.
        shutil.rmtree(tree / ".hypothesis", ignore_errors=True)
        if code is None:
            return Trial("hung", "", seconds, said[-2000:])
        status, by = _judge_pytest(code, report) if is_pytest else _judge_campaign(code, said, command[0])
        return Trial(status, by, seconds, said[-2000:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends what the command started and left, and the command itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _judge_pytest(code: int, report: Path) -> tuple[str, str]:
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return "broken", ""
    failed = [case for case in cases if case.find("failure") is not None]
    if code == 1 and failed:
        return "failed", f"{failed[0].get('classname', '').replace('.', '/')}.py::{failed[0].get('name')}"
    passed = [
        case for case in cases if len(case) == 0 or {part.tag for part in case} <= {"system-out", "system-err", "properties"}
    ]
    if code == 0 and passed:
        return "passed", ""
    return "broken", ""


def _judge_campaign(code: int, said: str, name: str) -> tuple[str, str]:
    """A campaign's last line is JSON with ``executions``, ``failures`` and ``detail``; the sanitizers' says what they found."""
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    sanitized = SANITIZED.fullmatch(last)
    if sanitized is not None:
        found = sanitized[1] == "1" or sanitized[2] != "0"
    else:
        try:
            found = bool(json.loads(last)["failures"])
        except (ValueError, KeyError, TypeError):
            return "broken", ""
    if code == 1 and found:
        return "failed", name
    return ("passed", "") if code == 0 and not found else ("broken", "")
