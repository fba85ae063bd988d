"""Invariant: as in ``fuzz.reorgs.world``. The campaign: many worlds, each from a seed of its own, as fast as they go.

Python's own random numbers choose most of the steps, because the engine of hypothesis costs more than the steps; the steps, the
model and the comparison are those of the machine. A story that fails is shortened by leaving out steps. A tenth of the time
goes to the machine itself. ``--over`` has the stories told by real plugins instead: see ``fuzz.reorgs.placed``.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hypothesis import seed as with_seed
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.campaign import positive
from fuzz.reorgs import machine
from fuzz.reorgs.choices import LENGTH, Choices
from fuzz.reorgs.placed import PLACED_SITUATIONS, WAYS, PlacedWorld
from fuzz.reorgs.situations import SITUATIONS, Situations
from fuzz.reorgs.world import CONSUME_ONCE_IN, FREQUENCIES, World

WORLD_STEPS = 200
MACHINE_WORLDS = 5
MACHINE_SHARE = 0.1
"""Of the time."""
FAILURES = Path("build/fuzz/failures/reorgs")
Story = list[tuple[str, bytes]]
MakeWorld = Callable[[bytes], World]


def story(seed: int) -> tuple[bytes, Story]:
    """The set-up and the steps of one world."""
    source = random.Random(seed)
    setup = source.randbytes(LENGTH)
    names = source.choices(list(FREQUENCIES), list(FREQUENCIES.values()), k=WORLD_STEPS - 1)
    steps = [(name, source.randbytes(LENGTH)) for name in names]
    # Chosen apart, so that what plugins say does not depend on how often somebody listens.
    listening = random.Random(f"listening {seed}")
    for place in sorted(listening.sample(range(WORLD_STEPS), WORLD_STEPS // CONSUME_ONCE_IN), reverse=True):
        steps.insert(place, ("consume", listening.randbytes(LENGTH)))
    return setup, [*steps, ("compare", b"")]


def maker(way: str | None) -> MakeWorld:
    """Makes worlds that plugins tell in this way; None: a store is told directly."""
    return World if way is None else partial(PlacedWorld, way=way)


def run(
    setup: bytes,
    steps: Story,
    vectors: Path | None = None,
    situations: Situations | None = None,
    *,
    make: MakeWorld = World,
) -> str | None:
    """None, or what went wrong; then the vector files are written."""
    world = make(setup)
    try:
        for name, choices in steps:
            getattr(world, name)(Choices(choices))  # one of STEPS
    except Exception:
        if vectors is not None:
            world.write_vectors(vectors)
        return traceback.format_exc()
    finally:
        if situations is not None:
            situations.add(world.situations)
        world.close()
    return None


def shorten(setup: bytes, steps: Story, make: MakeWorld = World) -> Story:
    """Leaves out what is not needed to fail: halves first, single steps last."""
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if run(setup, fewer, make=make) is not None:
                steps = fewer
            else:
                at += size
        size //= 2
    return steps


def run_machine(seed: int) -> str | None:
    """A few worlds of the hypothesis machine; None, or what went wrong, when the shortest story was found."""
    seeded = with_seed(seed)(type("Seeded", (machine.ReorgMachine,), {}))
    try:
        run_state_machine_as_test(
            seeded, settings=settings(max_examples=MACHINE_WORLDS, stateful_step_count=50, deadline=None, database=None)
        )
    except Exception:
        return traceback.format_exc()
    return None


def main() -> int:
    """0: no divergence; 1: one was found; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="fuzz.reorgs")
    parser.add_argument("--seconds", type=positive(float), default=60)
    parser.add_argument("--executions", type=positive(int), help="end after so many steps, whatever the time")
    parser.add_argument("--seed", type=int, help="of the first world; each further one has the next (a random one)")
    parser.add_argument("--over", choices=WAYS, help="told by real plugins that come in this way; no machine")
    parser.add_argument("--statistics", action="store_true", help="print how often each situation was met")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else secrets.randbelow(2**40)
    print(f"first seed {first}", flush=True)
    begun, seed, steps_done, in_machine = time.monotonic(), first, 0, 0.0
    situations = Situations()
    enough = options.executions if options.executions is not None else sys.maxsize
    make = maker(options.over)
    seconds = options.seconds if options.executions is None else float("inf")
    while steps_done < enough and (elapsed := time.monotonic() - begun) < seconds:
        setup, steps = story(seed)
        fault = run(setup, steps, situations=situations, make=make)
        if fault is not None:
            return _report(seed, steps_done, fault, options.over)
        steps_done += len(steps)
        if options.over is None and in_machine < elapsed * MACHINE_SHARE:
            at, before = time.monotonic(), machine.ReorgMachine.steps
            fault = run_machine(seed)
            in_machine += time.monotonic() - at
            steps_done += machine.ReorgMachine.steps - before
            if fault is not None:
                return _report_machine(seed, fault, steps_done)
        seed += 1
    elapsed = time.monotonic() - begun
    to_meet = SITUATIONS if options.over is None else PLACED_SITUATIONS
    counts = {name: situations.counts[name] for name in to_meet}
    if options.statistics:
        for name, count in counts.items():
            print(f"{count:>12,}  {name}")
    missed = "".join(f", never met: {name}" for name, count in counts.items() if not count)
    detail = (
        f"{seed - first} worlds, seeds {first} to {seed - 1}, {steps_done / max(elapsed, 1e-9):.0f} steps/s, "
        f"{counts['reorgs']} reorgs, {counts['deep reorgs']} deep, the deepest {situations.deepest} blocks, "
        f"{counts['crashes']} crashes{missed}"
    )
    print(json.dumps({"executions": steps_done, "failures": 0, "detail": detail, "situations": counts}))
    return 0


def _report(seed: int, done: int, found: str, way: str | None) -> int:
    make = maker(way)
    setup, steps = story(seed)
    steps = shorten(setup, steps, make)
    folder = FAILURES / str(seed)
    fault = run(setup, steps, folder, make=make)
    print(fault or f"{found}\nnot each time: a later run of the same story went well", file=sys.stderr)
    print(f"  a world set up by {setup.hex()}", file=sys.stderr)
    for name, choices in steps:
        print(f"  {name} {choices.hex()}", file=sys.stderr)
    return _name(seed, folder, done + WORLD_STEPS, "" if way is None else f" --over {way}")


def _report_machine(seed: int, fault: str, done: int) -> int:
    print(fault, file=sys.stderr)
    return _name(seed, machine.FAILURES, done)


def _name(seed: int, folder: Path, done: int, over: str = "") -> int:
    print(f"seed {seed}; again: python -m fuzz.reorgs{over} --seed {seed} --executions 1", file=sys.stderr)
    for path in sorted(folder.glob("*.jsonl")):
        print(f"python -m supervm_rt forks replay {path} --json", file=sys.stderr)
    print(json.dumps({"executions": done, "failures": 1, "detail": f"seed {seed}, vectors in {folder}"}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
