"""``python -m faults``: puts each deliberate fault into a copy of the project and shows that a test notices it.

Status 0: all were caught. 1: one was not, its command fails without it too, or it no longer fits the code. 2: usage.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import faults
from faults import trial
from faults.fault import Fault
from faults.tree import FaultError, Tree, check

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one fault."""

    fault: str
    caught: bool
    by: str
    """The test that failed; or why the fault does not count as caught."""
    seconds: float
    """Of the command, with the fault; without building."""


def gather() -> tuple[Fault, ...]:
    """The faults of all modules of this package that have any, by module and in their order."""
    found: list[Fault] = []
    for module in sorted(module.name for module in pkgutil.iter_modules(faults.__path__)):
        if module != "__main__":
            found += getattr(importlib.import_module(f"faults.{module}"), "FAULTS", ())
    return tuple(found)


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT, table: Sequence[Fault] | None = None) -> int:
    """The command. ``table``: these faults, not those of the package."""
    parser = argparse.ArgumentParser(prog="python -m faults", description="Shows that the tests notice deliberate faults.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these faults alone")
    parser.add_argument("--list", action="store_true", help="name the faults and what is wrong with each, and run nothing")
    parser.add_argument("--json", action="store_true", help="print the results as JSON; what happens meanwhile goes to stderr")
    chosen = parser.parse_args(arguments)
    known = tuple(table) if table is not None else gather()
    strangers = sorted(set(chosen.only) - {fault.name for fault in known})
    if strangers:
        parser.error(f"no such fault: {', '.join(strangers)} (see --list)")
    selected = [fault for fault in known if not chosen.only or fault.name in chosen.only]
    if chosen.list:
        for fault in selected:
            print(f"{fault.name:<44} {fault.file}: {fault.meaning}")
        return 0
    progress = sys.stderr if chosen.json else sys.stdout
    wrong = _mistakes(known, selected, root)
    if wrong:
        print(*(f"error: {line}" for line in wrong), sep="\n", file=sys.stderr)
        return 1
    results: list[Result] = []
    try:
        tree = Tree(root)
        with tree.open():
            controls: dict[tuple[str, ...], str] = {}
            print(f"{'fault':<44} {'seconds':>7}  caught by", file=progress)
            for fault in selected:
                result = _try(fault, tree, controls)
                results.append(result)
                verdict = result.by if result.caught else f"NOT CAUGHT: {result.by}"
                print(f"{result.fault:<44} {result.seconds:>7.1f}  {verdict}", file=progress, flush=True)
    except FaultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    caught = sum(result.caught for result in results)
    print(f"{caught} of {len(results)} faults were caught", file=progress)
    if chosen.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    return 0 if caught == len(results) else 1


def _mistakes(known: Sequence[Fault], selected: Sequence[Fault], root: Path) -> list[str]:
    names = Counter(fault.name for fault in known)
    said = [f"{name}: {count} faults have this name: rename all but one" for name, count in names.items() if count > 1]
    for fault in selected:
        try:
            check(fault, root)
        except FaultError as error:
            said.append(str(error))
    return said


def _try(fault: Fault, tree: Tree, controls: dict[tuple[str, ...], str]) -> Result:
    """One fault; before it, once for each command, a run without any."""
    command = fault.caught_by
    if command not in controls:
        control = trial.run(command, tree.path, bytecode=True)
        controls[command] = "" if control.status == "passed" else f"without the fault it {_ended(control)}"
    if controls[command]:
        return Result(fault.name, False, controls[command], 0.0)
    try:
        with tree.mutated(fault):
            ended = trial.run(command, tree.path)
    except FaultError as error:
        return Result(fault.name, False, str(error), 0.0)
    caught = ended.status == "failed"
    return Result(fault.name, caught, ended.by if caught else f"{' '.join(command)} {_ended(ended)}", round(ended.seconds, 1))


def _ended(ended: trial.Trial) -> str:
    if ended.status == "passed":
        return "passes"
    if ended.status == "hung":
        return f"did not end within {ended.seconds:.0f} s"
    if ended.status == "failed":
        return f"fails: {ended.by}\n{ended.output}"
    return f"ended, but not as a test fails:\n{ended.output}"


def _end(number: int, frame: object) -> None:
    """Unwinds, so that the running command is ended and the copy put right."""
    sys.exit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    sys.exit(main())
