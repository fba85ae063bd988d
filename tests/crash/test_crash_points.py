"""A part of the crash points; ``make test-crash`` goes through all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.crash.shim import ROOT


def campaign(*arguments: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in [str(ROOT), *sys.path] if path)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_crash_points_recover() -> None:
    status, report, said = campaign("--every", "127", "--seed", "5", "--jobs", "1")
    assert status == 0, said
    assert report["failures"] == 0
    assert int(str(report["executions"])) >= 50
