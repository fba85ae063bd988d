"""``python -m fuzz MINUTES``: every campaign, one after another, each in a process of its own, sharing the time by weight.

Prints one table and writes build/fuzz.json. Exit status 0: nothing was found; 1: something was; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
GRACE_SECONDS = 180.0
"""How long a campaign may go on past its time, to make its finding small; it counts as hung then."""
STOP_SECONDS = 10.0
LOG_LINES = 80


@dataclass(frozen=True)
class Campaign:
    """One line of the table."""

    weight: int
    """Its part of the time."""
    package: str = ""
    """Of ``fuzz``; empty: the campaign's own name."""
    arguments: tuple[str, ...] = ()


CAMPAIGNS = {
    "reorgs": Campaign(3),
    "reorgs_in_process": Campaign(1, "reorgs", ("--over", "in-process")),
    "reorgs_child": Campaign(1, "reorgs", ("--over", "child")),
    "reorgs_grpc": Campaign(1, "reorgs", ("--over", "grpc")),
    "lifecycle": Campaign(3),
    "bitcoin": Campaign(2),
    "bitcoin_differential": Campaign(2),
    "block_files": Campaign(1),
    "manifest": Campaign(1),
    "child_kills": Campaign(1),
    "http2": Campaign(2),
    "remote_frames": Campaign(1),
    "remote_differential": Campaign(1),
    "ring": Campaign(1),
}


@dataclass(frozen=True)
class Result:
    """What one campaign came to."""

    seconds: float
    seed: int
    executions: int
    failures: int
    detail: str
    log: str
    """Everything that it printed; relative to the project."""


def main() -> int:
    """Runs what was asked for."""
    options = _options()
    chosen = options.only or list(CAMPAIGNS)
    missing = [name for name in chosen if importlib.util.find_spec(f"fuzz.{_package(name)}") is None]
    if missing:
        print(f"there is no campaign {', '.join(missing)} in fuzz/", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    whole = sum(CAMPAIGNS[name].weight for name in chosen)
    results: dict[str, Result] = {}
    BUILD.mkdir(exist_ok=True)
    try:
        for name in chosen:
            seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
            seconds = options.minutes * 60 * CAMPAIGNS[name].weight / whole
            print(f"{name}: {seconds:.0f} s, seed {seed}", file=sys.stderr, flush=True)
            results[name] = _run(name, seconds, seed)
            if results[name].failures:
                _show_log(name, results[name])
            _write(results)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(json.dumps({name: asdict(result) for name, result in results.items()}) if options.json else _table(results))
    return 1 if any(result.failures for result in results.values()) else 0


def _package(name: str) -> str:
    return CAMPAIGNS[name].package or name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="campaigns that try to break the runtime")
    parser.add_argument("minutes", type=float, metavar="MINUTES", help="in all")
    parser.add_argument("--only", nargs="+", choices=list(CAMPAIGNS), metavar="NAME", help=f"of {', '.join(CAMPAIGNS)}")
    parser.add_argument("--seed", type=int, help="for each campaign; a fresh one where it is not given")
    parser.add_argument("--json", action="store_true", help="print what build/fuzz.json holds instead of the table")
    options = parser.parse_args()
    if not 0 < options.minutes < 1e6:
        parser.error("MINUTES is a number above 0")
    return options


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(name: str, seconds: float, seed: int) -> Result:
    log = BUILD / "fuzz" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    package = f"fuzz.{_package(name)}"
    command = [sys.executable, "-m", package, *CAMPAIGNS[name].arguments, "--seconds", f"{seconds:.1f}", "--seed", str(seed)]
    begun = time.monotonic()
    with log.open("wb") as output:
        # A session of its own: a Ctrl-C reaches it through _stop alone, and its own children with it.
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _stop(process)
    said = _last_object(log)
    wrong = None
    if status is None:
        wrong = f"did not end within {GRACE_SECONDS:.0f} s after its time"
    elif status not in {0, 1} or not said or (status == 1) != (said.get("failures", 0) > 0):
        wrong = f"ended with status {status} and no result"
    return Result(
        seconds=round(time.monotonic() - begun, 1),
        seed=seed,
        executions=int(said.get("executions", 0)),
        failures=max(int(said.get("failures", 0)), int(wrong is not None)),
        detail=wrong or str(said.get("detail", "")),
        log=str(log.relative_to(ROOT)),
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever of it still runs, with what it started."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + STOP_SECONDS
        while _lives(process) and time.monotonic() < deadline:
            time.sleep(0.02)
    process.wait()


def _lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _last_object(log: Path) -> dict[str, Any]:
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            if "executions" in said:
                return said
    return {}


def _show_log(name: str, result: Result) -> None:
    lines = (ROOT / result.log).read_text(errors="replace").splitlines()
    print(f"---- {name} found something; the end of {result.log}:", *lines[-LOG_LINES:], "----", sep="\n", file=sys.stderr)


def _write(results: dict[str, Result]) -> None:
    """As soon as each is known: a campaign that is stopped loses none."""
    text = json.dumps({name: asdict(result) for name, result in results.items()}, indent=1)
    draft = BUILD / ".fuzz.json"
    draft.write_text(text + "\n")
    draft.replace(BUILD / "fuzz.json")


def _table(results: dict[str, Result]) -> str:
    rows = [("campaign", "seconds", "seed", "executions", "found", "detail")]
    rows += [
        (name, f"{one.seconds:.0f}", str(one.seed), f"{one.executions:,}", str(one.failures), one.detail)
        for name, one in results.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in range(1, 5)) + f"  {row[5]}"
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
