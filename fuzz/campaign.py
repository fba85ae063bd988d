"""Invariant: a campaign ends with one line of JSON, and with status 0 (nothing found), 1 (found) or 2 (it could not run).

What all byte fuzzers have in common: the options, the folders and the engine, which is libFuzzer in each of them (atheris brings
its own). Between runs the corpus is kept, and what failed:

    build/fuzz/NAME           the harness, and the engine's log of the last run
    build/fuzz/corpus/NAME    inputs that reached something new
    build/fuzz/failures/NAME  inputs that failed
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path("build/fuzz")
INPUT_SECONDS = 10
"""One input that takes longer is a failure."""
MEMORY_MB = 2048
GRACE_SECONDS = 60
"""How long past its time an engine is waited for."""
TAIL_LINES = 60
"""Of the engine's log, when something failed."""


class CampaignError(Exception):
    """The campaign cannot run; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """One byte fuzzer."""

    name: str
    command: Callable[[], Sequence[str]]
    """Builds what it needs and says how the engine is started. Raises CampaignError."""
    seeds: Callable[[], dict[str, bytes]]
    """The first inputs, by name."""
    max_length: int
    """Bytes of the longest input that the engine makes."""
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the harness is built."""
        return BUILD / self.name

    @property
    def corpus(self) -> Path:
        """Inputs that reached something new, kept between runs."""
        return BUILD / "corpus" / self.name

    @property
    def failures(self) -> Path:
        """Inputs that failed."""
        return BUILD / "failures" / self.name

    def write_seeds(self) -> Path:
        """Writes the first inputs into a folder of their own."""
        folder = self.folder / "seeds"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in self.seeds().items():
            (folder / name).write_bytes(data)
        return folder


def main(campaign: Campaign, arguments: Sequence[str] | None = None) -> int:
    """The command line of one campaign. 0: nothing found; 1: found; 2: wrong usage, or it cannot run here."""
    parser = argparse.ArgumentParser(prog=f"fuzz.{campaign.name}")
    parser.add_argument("--seconds", type=positive(float), help="end after so long (60, unless --executions is given)")
    parser.add_argument("--executions", type=positive(int), help="end after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=Path, metavar="FILE", help="run this one input")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    try:
        if options.input is not None:
            return _run_one(campaign, options.input)
        seconds = options.seconds if options.seconds is not None or options.executions is not None else 60.0
        return _run(campaign, seconds, options.executions, options.seed)
    except CampaignError as error:
        print(f"fuzz.{campaign.name}: {error}", file=sys.stderr)
        return 2


Number = TypeVar("Number", int, float)


def positive(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    """For an option: a finite number above 0."""

    def convert(text: str) -> Number:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return convert


def _environment(campaign: Campaign) -> dict[str, str]:
    return os.environ | campaign.environment


def _run_one(campaign: Campaign, path: Path) -> int:
    if not path.is_file():
        raise CampaignError(f"{path} is not a file")
    command = [*campaign.command(), f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MB}", *campaign.flags, str(path)]
    done = subprocess.run(command, env=_environment(campaign), check=False)
    failed = done.returncode != 0
    return _say(1, failures=int(failed), detail=f"{path} {'fails' if failed else 'is dealt with'}")


def _run(campaign: Campaign, seconds: float | None, executions: int | None, seed: int) -> int:
    command = list(campaign.command())
    seeds = campaign.write_seeds()
    campaign.corpus.mkdir(parents=True, exist_ok=True)
    campaign.failures.mkdir(parents=True, exist_ok=True)
    before = set(campaign.failures.iterdir())
    command += [
        *([f"-max_total_time={max(round(seconds), 1)}"] if seconds is not None else []),
        *([f"-runs={executions}"] if executions is not None else []),
        f"-seed={seed + 1}",  # 0 means: any
        f"-max_len={campaign.max_length}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={campaign.failures}/",
        "-print_final_stats=1",
        *campaign.flags,
        str(campaign.corpus),
        str(seeds),
    ]
    log = campaign.folder / "log"
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun, used = time.monotonic(), spent.ru_utime + spent.ru_stime
    with log.open("wb") as out:
        try:
            limit = None if seconds is None else seconds + GRACE_SECONDS
            done = subprocess.run(command, stdout=out, stderr=out, env=_environment(campaign), timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            raise CampaignError(f"the engine did not end in time: see {log}") from None
    elapsed = time.monotonic() - begun
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = spent.ru_utime + spent.ru_stime - used
    text = log.read_text(encoding="utf-8", errors="replace")
    count = _executions(text)
    found = sorted(set(campaign.failures.iterdir()) - before) if done.returncode != 0 else []
    if done.returncode == 0:
        speed = f"{count / elapsed:.0f} executions/s ({count / processor:.0f} per second of processor time)"
        return _say(count, failures=0, detail=f"{speed}, seed {seed}{_reach(text)}")
    print("\n".join(text.splitlines()[-TAIL_LINES:]), file=sys.stderr)
    if not found:
        # The same input may have failed before; its file is then written again.
        found = [Path(path) for path in re.findall(r"Test unit written to (\S+)", text)]
    if not found:
        raise CampaignError(f"the engine ended with status {done.returncode} and left no input: see {log}")
    for path in found:
        print(f"again: python -m fuzz.{campaign.name} --input {path}", file=sys.stderr)
    return _say(count, failures=len(found), detail=f"{found[0]}, seed {seed}")


def _executions(log: str) -> int:
    final = re.findall(r"stat::number_of_executed_units:\s*(\d+)", log)
    if final:
        return int(final[-1])
    seen = re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    return int(seen[-1]) if seen else 0


def _reach(log: str) -> str:
    """What the engine reached, and what the harness counted by itself."""
    seen = re.findall(r"cov: (\d+)", log)
    own = re.findall(r"^counted::([a-z_]+): (\d+)$", log, re.MULTILINE)
    counted = "".join(f", {int(count):,} {name.replace('_', ' ')}" for name, count in own)
    return (f", {seen[-1]} edges" if seen else "") + counted


def _say(executions: int, *, failures: int, detail: str) -> int:
    print(json.dumps({"executions": executions, "failures": failures, "detail": detail}))
    return 1 if failures else 0
