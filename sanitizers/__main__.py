"""Runs the native code under sanitizers: ``python -m sanitizers [--frames N] [--seed N] [extension] [threads] [-- PYTEST...]``.

extension: the tests that load compiled code, with everything of ours that is compiled under the address, leak and
undefined-behaviour sanitizers. What follows ``--`` goes to pytest; paths there replace those below.
threads: the ring on real threads, under the thread sanitizer and then under the others.

Exit status: 0 nothing was found, 1 something was, 2 wrong call.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sanitizers import tree
from tests.native import harness

TESTS = (
    "tests/abi",
    "tests/network",
    "tests/plugins",
    "tests/ir",
    "tests/runtime",
    "tests/store",
    "tests/feed/test_pages.py",
    "tests/feed/test_feed.py",
    "tests/sample",
    "tests/remote/test_data_frames.py",
    "tests/remote/test_decoder.py",
    "tests/remote/test_encoder.py",
)
# The search for leaks stops all threads and reads their memory from outside. One that is just about to end can make it break off:
# a fault of that search, which has then said nothing of the process.
LEAK_SEARCH_BROKE = "LeakSanitizer has encountered a fatal error"
ATTEMPTS = 3
NETWORK_ROUNDS = 200


def run_extension(pytest: list[str]) -> bool:
    """Whether all tests passed and no process of theirs had a sanitizer report anything."""
    built = tree.build()
    environment = built.environment()
    where = subprocess.run(
        [
            sys.executable,
            "-c",
            "from supervm_rt import _abi; from supervm_rt.ir import _bitcoin; from supervm_rt.store.feed import _pages; "
            "from supervm_rt.transports.remote import _frames; "
            "print(_abi.__file__, _bitcoin.__file__, _pages.__file__, _frames.__file__)",
        ],
        cwd=built.project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if where.stdout.count(str(built.project)) != 4:
        print(f"the built extension cannot be used: {where.stdout}{where.stderr}")
        return False
    paths = [argument for argument in pytest if argument.startswith("tests/")] or list(TESTS)
    options = [argument for argument in pytest if not argument.startswith("tests/")]
    # pytest's own handler of signals would come before the sanitizer's, which says more.
    command = [sys.executable, "-m", "pytest", "-p", "no:faulthandler", "--timeout", "600"]
    command += ["-o", f"cache_dir={built.home / 'cache'}", "-m", "not nodes and not unsanitized", *options, *paths]
    again: list[str] = []
    for attempt in range(1, ATTEMPTS + 1):
        status = subprocess.run([*command, *again], cwd=built.project, env=environment, check=False).returncode
        reports = {report.name: report.read_text(errors="replace") for report in sorted(built.reports.iterdir())}
        for name, text in reports.items():
            print(f"==== {name}\n{text}", flush=True)
        print(f"extension: pytest ended with status {status}; {len(reports)} processes had something reported", flush=True)
        if attempt == ATTEMPTS or not reports or not all(LEAK_SEARCH_BROKE in text for text in reports.values()):
            break
        print("extension: the search for leaks broke off by itself; what failed by that (or else all) is run again", flush=True)
        again = ["--last-failed"]
        for name in reports:
            (built.reports / name).unlink()
    return status == 0 and not reports


def run_threads(frames: int, seed: int) -> bool:
    """Whether the sanitizers found nothing, and every frame came as it was sent."""
    good = True
    with tempfile.TemporaryDirectory(prefix="supervm-threads-") as folder:
        for sanitize in (harness.THREAD, harness.ADDRESS):
            program = harness.build(sanitize, Path(folder))
            began = time.monotonic()
            counted, complaint = harness.run(program, frames, seed)
            print(f"threads, {sanitize}: {complaint or counted}, {time.monotonic() - began:.1f} s", flush=True)
            good = good and not complaint
            counted, complaint = harness.run(harness.build(sanitize, Path(folder), "network_threads"), NETWORK_ROUNDS, seed)
            print(f"network threads, {sanitize}: {complaint or counted}", flush=True)
            good = good and not complaint
    return good


def main(arguments: list[str]) -> int:
    """Runs what is named, or both."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own, pytest = arguments[:end], arguments[end + 1 :]
    parser = argparse.ArgumentParser(prog="sanitizers", description="The native code under sanitizers.")
    parser.add_argument("parts", nargs="*", metavar="extension|threads", help="what to run; both where none is named")
    parser.add_argument("--frames", type=int, default=500_000, help="how many frames the threads hand over, under each sanitizer")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(own)
    if unknown := [part for part in options.parts if part not in ("extension", "threads")]:
        parser.error(f"no part is called {unknown[0]}: there are extension and threads")
    good = True
    if "threads" in options.parts or not options.parts:
        good = run_threads(options.frames, options.seed)
    if "extension" in options.parts or not options.parts:
        good = run_extension(pytest) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
