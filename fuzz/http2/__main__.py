"""Invariant: as in ``judging``. The campaign: stories from seeds, one behind the other, to one node.

A story that is found is made shorter, told to a node of its own each time, and written down:

    python -m fuzz.http2 --seed N --executions 1                     the story of a seed
    python -m fuzz.http2 --input build/fuzz/failures/http2/N.json    one that was written down
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path

from fuzz.campaign import positive
from fuzz.http2.judging import Totals, found_by, judging, play
from fuzz.http2.stories import Story, story

FAILURES = Path("build/fuzz/failures/http2")
SHORTEN_SECONDS = 60.0


def main() -> int:
    """0: nothing was found; 1: something was; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="fuzz.http2")
    parser.add_argument("--seconds", type=positive(float), help="end after so long (60, unless --executions is given)")
    parser.add_argument("--executions", type=positive(int), help="end after so many stories, whatever the time")
    parser.add_argument("--seed", type=int, help="of the first story; each further one has the next (a random one)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="tell this one story")
    parser.add_argument("--statistics", action="store_true", help="print how often each kind of story was told")
    options = parser.parse_args()
    if options.input is not None:
        if not options.input.is_file():
            print(f"fuzz.http2: {options.input} is not a file", file=sys.stderr)
            return 2
        found = play([_read(options.input)])
        print(found or "nothing", file=sys.stderr)
        return _say(1, int(bool(found)), f"{options.input} {'fails' if found else 'is dealt with'}")
    first = options.seed if options.seed is not None else secrets.randbelow(2**40)
    seconds = float("inf") if options.executions is not None else options.seconds or 60.0
    return _campaign(first, seconds, options.executions or sys.maxsize, statistics=options.statistics)


def _campaign(first: int, seconds: float, executions: int, *, statistics: bool) -> int:
    print(f"first seed {first}", flush=True)
    totals = Totals()
    begun = time.monotonic()
    seed = first

    async def tell() -> None:
        nonlocal seed
        async with judging(totals) as judge:
            while seed - first < executions and time.monotonic() - begun < seconds:
                await judge.play(story(seed))
                seed += 1

    found = found_by(tell)
    elapsed = time.monotonic() - begun
    if statistics:
        for kind, count in sorted(totals.kinds.items()):
            print(f"{count:>8,}  {kind}")
    if found:
        return _report(seed, found, totals)
    return _say(
        totals.stories,
        0,
        f"seeds {first} to {seed - 1}, {totals.stories / elapsed:.0f} stories/s, {totals.frames:,} frames answered, "
        f"{totals.sound_calls:,} sound calls; the honest peer waited {1000 * totals.slowest:.0f} ms at most "
        f"({totals.slowest_of}); one story took {totals.peak / (1 << 20):.0f} MiB at most ({totals.peak_of})",
    )


def _report(seed: int, found: str, totals: Totals) -> int:
    told = story(seed)
    print(f"seed {seed}, a story of kind {told.kind}: {found}", file=sys.stderr)
    alone = play([told])
    if alone and not told.expected:
        told = _shorten(told)
        alone = play([told])
    print(alone or "not so when told to a node of its own", file=sys.stderr)
    FAILURES.mkdir(parents=True, exist_ok=True)
    path = FAILURES / f"{seed}.json"
    _write(told, path)
    print(f"again: python -m fuzz.http2 --input {path}", file=sys.stderr)
    print(f"       python -m fuzz.http2 --seed {seed} --executions 1", file=sys.stderr)
    return _say(totals.stories + 1, 1, f"seed {seed}, {path}")


def _shorten(told: Story) -> Story:
    """Leaves out what is not needed to fail: halves first, single steps last."""
    deadline = time.monotonic() + SHORTEN_SECONDS
    size = len(told.steps) // 2
    while size and time.monotonic() < deadline:
        at = 0
        while at < len(told.steps) and time.monotonic() < deadline:
            fewer = Story(**{**asdict(told), "steps": told.steps[:at] + told.steps[at + size :]})
            if play([fewer]):
                told = fewer
            else:
                at += size
        size //= 2
    return told


def _write(told: Story, path: Path) -> None:
    said = asdict(told) | {"steps": [step.hex() for step in told.steps], "expected": list(told.expected.items())}
    path.write_text(json.dumps(said, indent=1) + "\n")


def _read(path: Path) -> Story:
    said = json.loads(path.read_text())
    said["steps"] = [bytes.fromhex(step) for step in said["steps"]]
    said["expected"] = dict(said["expected"])
    return Story(**said)


def _say(executions: int, failures: int, detail: str) -> int:
    print(json.dumps({"executions": executions, "failures": failures, "detail": detail}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
