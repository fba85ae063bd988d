"""Invariant: the inputs that the campaigns keep reach 95 % of the branches of the parser, of the ring and of the decoder.

``python -m fuzz.coverage`` lets the campaigns run for a few executions (``--executions 0``: not at all), builds the harnesses for
counting, runs the first inputs and the kept corpus once through them, and counts the two outcomes of each condition in the
product's own files: clang's branch coverage. What no input reached is listed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.bitcoin.__main__ import CAMPAIGN as BITCOIN
from fuzz.bitcoin.__main__ import HARNESS as BITCOIN_HARNESS
from fuzz.block_files.__main__ import CAMPAIGN as BLOCK_FILES
from fuzz.block_files.__main__ import HARNESS as BLOCK_FILES_HARNESS
from fuzz.campaign import ROOT, Campaign, CampaignError
from fuzz.campaign import main as campaign
from fuzz.native import ENVIRONMENT, Harness, build
from fuzz.remote_frames.__main__ import CAMPAIGN as REMOTE_FRAMES
from fuzz.remote_frames.__main__ import HARNESS as REMOTE_FRAMES_HARNESS
from fuzz.ring.__main__ import CAMPAIGN as RING
from fuzz.ring.__main__ import HARNESS as RING_HARNESS

LEAST = 95.0
"""Percent."""
EXECUTIONS = 150_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What is counted, and how much of it must be reached."""

    name: str
    harness: Harness
    campaign: Campaign
    least: float
    files: tuple[str, ...]
    """Names of the product's files that are counted."""


SUBJECTS = (
    Subject("the parser", BITCOIN_HARNESS, BITCOIN, LEAST, ("bitcoin.c",)),
    Subject(
        "the ring",
        RING_HARNESS,
        RING,
        LEAST,
        (
            *("ring.c", "ring.h", "record.h", "reader.c", "reader.h", "sink.c", "side_ring.c"),
            *("lock.c", "wait.c", "slot.c", "slot.h", "channel.c", "in_process.c", "releaser.c", "host.c"),
        ),
    ),
    Subject("the decoder of remote frames", REMOTE_FRAMES_HARNESS, REMOTE_FRAMES, LEAST, ("message.c", "frame.c")),
    Subject(
        "the block-file reader",
        BLOCK_FILES_HARNESS,
        BLOCK_FILES,
        0.0,
        ("record.c", "block_file.c", "reader.c", "position.c", "xor_key.c", "settings.c", "json.c"),
    ),
)
Branches = dict[tuple[int, int, int, int], list[int]]


def count(subject: Subject) -> dict[str, Branches]:
    """How often each branch was taken, either way, by file. Raises CampaignError."""
    program = build(subject.harness, counted=True)
    seeds = subject.campaign.write_seeds()
    subject.campaign.corpus.mkdir(parents=True, exist_ok=True)
    raw, merged = program.with_suffix(".profraw"), program.with_suffix(".profdata")
    environment = os.environ | ENVIRONMENT | {"LLVM_PROFILE_FILE": str(raw)}
    _run([str(program), "-runs=0", str(seeds), str(subject.campaign.corpus)], environment)
    _run(["llvm-profdata", "merge", "-sparse", str(raw), "-o", str(merged)])
    export = json.loads(_run(["llvm-cov", "export", str(program), f"-instr-profile={merged}"]))
    files: dict[str, Branches] = {}
    product = {path.parent.resolve() for path in subject.harness.product()}
    for file in export["data"][0]["files"]:
        path = Path(file["filename"])
        if path.name in subject.files and path.resolve().parent in product:
            files[path.name] = _branches(file)
    missing = set(subject.files) - set(files)
    if missing - {name for name in missing if name.endswith(".h")}:
        raise CampaignError(f"nothing was counted in {', '.join(sorted(missing))}")
    return files


def _branches(file: dict[str, Any]) -> Branches:
    # An inline function is there once for each file that includes it: its places are added up.
    found: Branches = defaultdict(lambda: [0, 0])
    for line, column, end_line, end_column, true, false, *_ in file["branches"]:
        taken = found[line, column, end_line, end_column]
        taken[0] += true
        taken[1] += false
    return found


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        raise CampaignError(f"{command[0]} is not installed: run tools/prepare-machine python3 proving") from None
    if done.returncode != 0:
        raise CampaignError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def report(subject: Subject) -> bool:
    """Prints the figures. Whether they are high enough."""
    taken = total = 0
    lines = []
    for name, branches in sorted(count(subject).items()):
        outcomes = [times > 0 for pair in branches.values() for times in pair]
        taken += sum(outcomes)
        total += len(outcomes)
        if outcomes:
            lines.append(f"  {name:14} {sum(outcomes):4} of {len(outcomes):4}")
        for (line, column, _, _), pair in sorted(branches.items()):
            never = [word for word, times in zip(("true", "false"), pair, strict=True) if times == 0]
            if never:
                lines.append(f"    {name}:{line}:{column}: never {' or '.join(never)}")
    share = 100 * taken / total
    print(f"{subject.name}: {share:.1f} % of {total} branches")
    print("\n".join(lines))
    if share < subject.least:
        print(f"{subject.name}: less than {subject.least} %", file=sys.stderr)
    return share >= subject.least


def main() -> int:
    """0: enough; 1: not enough, or a campaign found something; 2: it cannot be counted."""
    parser = argparse.ArgumentParser(prog="fuzz.coverage")
    parser.add_argument("--executions", type=int, default=EXECUTIONS, help="of each campaign, before it is counted")
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        if options.executions > 0:
            for subject in SUBJECTS:
                print(f"{subject.campaign.name}: ", end="", flush=True)
                if status := campaign(subject.campaign, ["--executions", str(options.executions)]):
                    return status
        enough = [report(subject) for subject in SUBJECTS]
    except CampaignError as error:
        print(f"fuzz.coverage: {error}", file=sys.stderr)
        return 2
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
