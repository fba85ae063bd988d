"""What every test of this suite relies on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's load than about the code; no result may depend on it.
settings.register_profile("supervm", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("supervm")

OWN_PROCESS = "SUPERVM_TEST_IN_A_PROCESS_OF_ITS_OWN"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is marked own_process in a fresh interpreter: it counts what this process holds, threads and mappings.

    Of those, what other tests left (idle threads that end when they please, plugins that were abandoned on purpose) is no matter.
    """
    marker = pyfuncitem.get_closest_marker("own_process")
    if marker is None or OWN_PROCESS in os.environ:
        return None
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    environment = {**os.environ, OWN_PROCESS: "1"}
    if marker.kwargs.get("abandons", False) and "ASAN_OPTIONS" in environment:
        # What a thread that never ends holds, cannot be told from what is lost.
        environment["ASAN_OPTIONS"] += ":detect_leaks=0"
    # A folder of its own: pytest's common one is tidied by every process that ends, this one included.
    with tempfile.TemporaryDirectory(prefix="supervm-test-", ignore_cleanup_errors=True) as folder:
        command += ["--basetemp", str(Path(folder, "t"))]
        done = subprocess.run(
            command, cwd=pyfuncitem.config.rootpath, env=environment, capture_output=True, text=True, check=False, timeout=110
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return True
