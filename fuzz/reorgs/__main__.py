"""Invariant: as in ``fuzz.reorgs.world``. The campaign: many worlds, each from a seed of its own, as fast as they go.

Python's own random numbers choose the steps here, because the engine of hypothesis costs more than the steps; the steps, the
model and the comparison are those of the machine. A story that fails is shortened by leaving out steps.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

from fuzz.reorgs.choices import LENGTH, Choices
from fuzz.reorgs.world import FREQUENCIES, STEPS, World

WORLD_STEPS = 200
FAILURES = Path("build/fuzz/failures/reorgs")
Story = list[tuple[str, bytes]]


def story(seed: int) -> tuple[bytes, Story]:
    """The set-up and the steps of one world."""
    source = random.Random(seed)
    setup = source.randbytes(LENGTH)
    names = source.choices(list(FREQUENCIES), list(FREQUENCIES.values()), k=WORLD_STEPS - 1)
    return setup, [*((name, source.randbytes(LENGTH)) for name in names), ("compare", b"")]


def run(setup: bytes, steps: Story, vectors: Path | None = None) -> str | None:
    """None, or what went wrong; then the vector files are written."""
    world = World(setup)
    try:
        for name, choices in steps:
            STEPS[name](world, Choices(choices))
    except Exception:
        if vectors is not None:
            world.write_vectors(vectors)
        return traceback.format_exc()
    finally:
        world.close()
    return None


def shorten(setup: bytes, steps: Story) -> Story:
    """Leaves out what is not needed to fail: halves first, single steps last."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if run(setup, fewer) is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def main() -> int:
    """0: no divergence; 1: one was found; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="fuzz.reorgs")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, help="end after so many, whatever the time")
    parser.add_argument("--seed", type=int, default=0, help="of the first world; each further one has the next")
    options = parser.parse_args()
    begun, seed, done = time.monotonic(), options.seed, 0
    enough = options.steps if options.steps is not None else sys.maxsize
    seconds = options.seconds if options.steps is None else float("inf")
    while done < enough and time.monotonic() - begun < seconds:
        setup, steps = story(seed)
        if run(setup, steps) is not None:
            return _report(seed, setup, steps, done)
        done += len(steps)
        seed += 1
    elapsed = time.monotonic() - begun
    detail = f"{seed - options.seed} worlds, seeds {options.seed} to {seed - 1}, {done / max(elapsed, 1e-9):.0f} steps/s"
    print(json.dumps({"executions": done, "failures": 0, "detail": detail}))
    return 0


def _report(seed: int, setup: bytes, steps: Story, done: int) -> int:
    steps = shorten(setup, steps)
    folder = FAILURES / str(seed)
    fault = run(setup, steps, folder)
    print(fault, file=sys.stderr)
    for name, choices in steps:
        print(f"  {name} {choices.hex()}", file=sys.stderr)
    print(f"seed {seed}; again: python -m fuzz.reorgs --seed {seed} --steps 1", file=sys.stderr)
    for path in sorted(folder.glob("*.jsonl")):
        print(f"python -m supervm_rt forks replay {path} --json", file=sys.stderr)
    print(json.dumps({"executions": done + WORLD_STEPS, "failures": 1, "detail": f"seed {seed}, vectors in {folder}"}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
