"""Searches the models with spin: ``python -m models [NAME...]``, NAME of agreement, doorbell, lock, ring; or all of them.

A model passes where spin has looked at every state and found no error. Each of its mutations has to give one: a fence removed, a
look before the announcement, a sequence that is not counted on. Exit status: 0 all as it should be, 1 not, 2 wrong call.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from models.agreement import ROOT, disagreements

SEARCH_SECONDS = 900
MEMORY_MEGABYTES = 3000
DEPTH = 100_000


@dataclass(frozen=True, slots=True)
class Model:
    """One file, the bounds within which it is searched, and the mutations that must not pass."""

    name: str
    bounds: tuple[str, ...]
    """Each: macros, as ``A=1 B=2``. The first one is also that of the mutations."""
    mutations: tuple[str, ...]
    """Macros that change the model."""
    bounds_of: dict[str, str] = field(default_factory=dict)
    """Other bounds, for the mutations that show only there."""


NOBODY_DROPS = "RECORDS=3 SHORT=1 LONG=3 DROPS=0"

MODELS = (
    Model(
        "lock",
        ("PUBLISHERS=2 TAKES=2", "PUBLISHERS=3 TAKES=1"),
        (
            "NO_FENCE_IN_LEAVE",
            "NO_FENCE_IN_TAKE",
            "SEQUENCE_AFTER_THE_LOOK",
            "SEQUENCE_NOT_BUMPED",
            "STOP_WITHOUT_INTERRUPT",
        ),
    ),
    Model(
        "doorbell",
        (
            "BLOCKS=1 MESSAGES=1 CALLS_RETURNED=1",
            "BLOCKS=2 MESSAGES=1 CALLS_RETURNED=0",
            "BLOCKS=2 MESSAGES=0 CALLS_RETURNED=1",
            "BLOCKS=3 MESSAGES=0 CALLS_RETURNED=0",
        ),
        (
            "NO_FENCE_IN_ANNOUNCE",
            "NO_FENCE_IN_LEAVE",
            "NO_FENCE_BEFORE_THE_BELL",
            "ANNOUNCE_AFTER_THE_LOOK",
            "BELL_BEFORE_THE_HEAD",
            "GENERATION_TOGGLES",
            "SIDE_RING_NOT_LOOKED_AT",
            "NOTICE_NOT_LOOKED_AT",
        ),
    ),
    Model(
        "ring",
        ("RECORDS=3 SHORT=1 LONG=2 DROPS=1", "RECORDS=3 SHORT=1 LONG=3 DROPS=1"),
        (
            "NO_FENCE_IN_FREE",
            "NO_FENCE_IN_WAIT",
            "NO_FENCE_IN_LEAVE",
            "NO_FENCE_IN_ANNOUNCE",
            "ANNOUNCE_AFTER_THE_LOOK",
            "SEQUENCE_AFTER_THE_LOOK",
            "SEQUENCE_NOT_BUMPED",
            "HEAD_BEFORE_THE_DATA",
            "HEAD_STORED_RELAXED",
            "TAIL_AT_THE_READ",
            "NO_BALANCE_ASLEEP",
            "STOP_NOT_LOOKED_AT",
            "STOP_WITHOUT_A_NEW_SEQUENCE",
            "NO_BELL_WHEN_FULL",
            "WANTED_NOT_SAID",
        ),
        {"NO_BELL_WHEN_FULL": NOBODY_DROPS, "WANTED_NOT_SAID": NOBODY_DROPS},
    ),
)


@dataclass(frozen=True, slots=True)
class Search:
    """What spin said."""

    errors: int
    complete: bool
    states: int
    seconds: float
    says: str
    """The error, or all of the output where it is not understood."""
    steps: str
    """How it came to the error."""

    @property
    def clean(self) -> bool:
        """Nothing was found, and nothing left out."""
        return self.errors == 0 and self.complete


def search(name: str, macros: list[str], *, explain: bool = False) -> Search:
    """Has spin look at all states of a model, up to the first error, and say how it came to that."""
    with tempfile.TemporaryDirectory(prefix="supervm-model-") as folder:

        def run(*command: str) -> str:
            done = subprocess.run(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=SEARCH_SECONDS,
            )
            if done.returncode != 0 and command[0] != "./pan":
                raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
            return done.stdout

        definitions = [f"-D{macro}" for macro in macros]
        run("spin", *definitions, "-a", str(ROOT / f"{name}.pml"))
        run("cc", "-O2", "-w", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MEGABYTES}", "-o", "pan", "pan.c")
        began = time.monotonic()
        output = run("./pan", f"-m{DEPTH}")
        seconds = time.monotonic() - began
        errors = re.search(r"errors: (\d+)", output)
        states = re.search(r"(\d+) states, stored", output)
        says = re.search(r"^pan:1: (.*?) \(at depth", output, re.MULTILINE)
        steps = ""
        if explain and (Path(folder) / f"{name}.pml.trail").exists():
            steps = run("spin", *definitions, "-k", f"{name}.pml.trail", "-p", str(ROOT / f"{name}.pml"))
        return Search(
            errors=int(errors[1]) if errors else -1,
            complete=not re.search(r"Search not completed|max search depth too small|reached -DMEMLIM|out of memory", output),
            states=int(states[1]) if states else 0,
            seconds=seconds,
            says=says[1] if says else output,
            steps=steps,
        )


def check(model: Model) -> int:
    """Prints a line for each search; how many were not as they should be."""
    bad = 0
    for bounds in model.bounds:
        found = search(model.name, bounds.split(), explain=True)
        print(f"{model.name:<9} {bounds:<38} errors: {found.errors}, {found.states:,} states, {found.seconds:.1f} s", flush=True)
        if not found.clean:
            bad += 1
            print(found.steps, "not all states were searched" if not found.complete else "", found.says, sep="\n")
    for mutation in model.mutations:
        found = search(model.name, [mutation, *model.bounds_of.get(mutation, model.bounds[0]).split()])
        caught = found.errors > 0
        bad += not caught
        print(f"{model.name:<9} {mutation:<38} {'caught: ' + found.says if caught else 'NOT CAUGHT'}", flush=True)
    return bad


def agree() -> int:
    """Prints what a model and the C code do not have in common; how many statements that are."""
    found = [line for model in sorted(ROOT.glob("*.pml")) for line in disagreements(model)]
    print("agreement with the C code:", "complete" if not found else f"{len(found)} statements differ", flush=True)
    for line in found:
        print(" ", line)
    return len(found)


def main(names: list[str]) -> int:
    """Runs what is named, or all."""
    known = {model.name: model for model in MODELS}
    if unknown := set(names) - set(known) - {"agreement"}:
        print(f"models: {', '.join(sorted(unknown))}: the names are agreement, {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = names or ["agreement", *known]
    bad = [agree() if name == "agreement" else check(known[name]) for name in chosen]
    return 1 if any(bad) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
