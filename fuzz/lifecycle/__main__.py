"""Invariant: as in ``fuzz.lifecycle.story`` and ``fuzz.lifecycle.walk``. The campaign: many of both, each from a seed of its own.

They are played in child processes: a plugin that was abandoned keeps its slot for the life of the process, and one that kills
or hangs its process is a finding like any other.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import seed as with_seed
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.campaign import positive
from fuzz.lifecycle import story, walk
from fuzz.lifecycle.machine import TransportMachine
from fuzz.reorgs.choices import Choices
from supervm_rt._abi import SLOT_COUNT, slots_in_use
from supervm_rt.trust.policy import Placement

SLOTS_KEPT_FREE = 24
LONGEST = 100
"""Seconds of real time after which a story counts as hung."""
SIMPLIFY_SECONDS = 30
MACHINE_EVERY = 150
"""How many seeds come to one round of the hypothesis machine."""
CHILD_EVERY = 4
"""How many seeds come to one whose plugins are in processes of their own."""
SWEEP_EVERY = 60
"""How many seeds come to one story that is interrupted at every step, one after another."""

Play = Callable[[bytes, Counter[str]], object]


def play_story(data: bytes, met: Counter[str], placement: Placement = Placement.IN_PROCESS) -> None:
    """One runtime."""
    story.play(replace(story.make_story(Choices(data)), placement=placement), met)
    met["executions"] += 1
    met[f"executions {placement}"] += 1


def play_walk(data: bytes, met: Counter[str], placement: Placement = Placement.IN_PROCESS) -> None:
    """One transport."""
    met.update(walk.walk(replace(walk.make_walk(Choices(data)), placement=placement)))
    met["executions"] += 1
    met[f"executions {placement}"] += 1


def play_sweep(data: bytes, met: Counter[str]) -> None:
    """One runtime again and again, interrupted at each step in turn."""
    plain = story.make_story(Choices(bytes(len(data))))
    interruption = (story.Interruption.CANCEL, story.Interruption.STOP, story.Interruption.FAIL)[data[0] % 3]
    plain = replace(plain, parts=(story.make_story(Choices(data)).parts[0],), interruption=interruption)
    if plain.parts[0].may_be_abandoned:
        return
    at = steps = 1
    while at <= steps:
        steps = story.play(replace(plain, at=at), met)
        at += 1
        met["executions"] += 1


def run_machine(seed: int) -> None:
    """A few transports of the hypothesis machine. Raises what it finds."""
    seeded = with_seed(seed)(type("Seeded", (TransportMachine,), {}))
    run_state_machine_as_test(seeded, settings=settings(max_examples=10, stateful_step_count=15, deadline=None, database=None))


def plan(seed: int) -> tuple[Play, bytes]:
    """What this seed stands for."""
    data = random.Random(seed).randbytes(walk.LENGTH)
    if seed % SWEEP_EVERY == SWEEP_EVERY - 1:
        return play_sweep, data
    play = play_walk if seed % 3 == 2 else play_story
    placement = Placement.CHILD if seed % CHILD_EVERY == CHILD_EVERY - 1 else Placement.IN_PROCESS
    return partial(play, placement=placement), data


def simplify(play: Play, data: bytes) -> bytes:
    """Puts zeros, the plainest choices, wherever it still fails, for as long as there are time and slots."""
    end = time.monotonic() + SIMPLIFY_SECONDS
    for index in range(len(data)):
        if time.monotonic() > end:
            break
        fewer = data[:index] + b"\0" + data[index + 1 :]
        if data[index] == 0 or slots_in_use() > SLOT_COUNT - SLOTS_KEPT_FREE // 2:
            continue
        try:
            play(fewer, Counter())
        except Exception:
            data = fewer
    return data


def child(first: int, last: int, seconds: float, repeat: int) -> int:
    """Plays the seeds from ``first`` to below ``last``, for as long as there are time and slots. One line for each thing said."""
    met: Counter[str] = Counter()
    end = time.monotonic() + seconds
    seed = first
    while seed < last and time.monotonic() < end and slots_in_use() < SLOT_COUNT - SLOTS_KEPT_FREE:
        print(json.dumps({"at": seed}), flush=True)
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        play, data = plan(seed)
        try:
            for _ in range(repeat):
                play(data, met)
                faulthandler.dump_traceback_later(LONGEST, exit=True)
        except Exception as error:
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"failed": seed, "error": f"{error!r}", "story": "not simplified", "met": met}), flush=True)
            plain = simplify(play, data)
            with contextlib.suppress(Exception):
                play(plain, Counter())
            walks = isinstance(play, partial) and play.func is play_walk
            told = str(walk.make_walk(Choices(plain)) if walks else story.make_story(Choices(plain)))
            if isinstance(play, partial) and play.keywords["placement"] is Placement.CHILD:
                told = told.replace(Placement.IN_PROCESS, Placement.CHILD, 1)
            print(json.dumps({"failed": seed, "error": f"{error!r}", "story": told, "met": met}), flush=True)
            return 1
        if seed % MACHINE_EVERY == MACHINE_EVERY - 1:
            before = TransportMachine.steps
            try:
                run_machine(seed)
            except Exception as error:
                notes = "\n".join(getattr(error, "__notes__", ()))
                print(json.dumps({"failed": seed, "error": f"{error!r}", "story": notes, "met": met}), flush=True)
                return 1
            met["steps of the hypothesis machine"] += TransportMachine.steps - before
        seed += 1
    print(json.dumps({"next": seed, "met": met}), flush=True)
    return 0


def main() -> int:
    """0: no divergence; 1: one was found; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="fuzz.lifecycle")
    parser.add_argument("--seconds", type=positive(float), default=60)
    parser.add_argument("--executions", type=positive(int), help="end after so many seeds, whatever the time")
    parser.add_argument("--seed", type=int, help="of the first story; each further one has the next (a random one)")
    parser.add_argument("--repeat", type=int, default=1, help="play each so often: threads interleave as they like")
    parser.add_argument("--statistics", action="store_true", help="print what was met, and how often")
    parser.add_argument("--child", type=int, metavar="LAST", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        return child(options.seed, options.child, options.seconds, options.repeat)
    first = options.seed if options.seed is not None else secrets.randbelow(2**40)
    print(f"first seed {first}", flush=True)
    last = first + options.executions if options.executions is not None else sys.maxsize
    end = time.monotonic() + options.seconds if options.executions is None else float("inf")
    met: Counter[str] = Counter()
    seed = first
    while seed < last and time.monotonic() < end:
        said, status = _run_child(seed, last, min(end - time.monotonic(), 1e9), options.repeat)
        met.update(said.get("met", {}))
        if "next" not in said or status != 0:
            return _report(said, status, met)
        seed = said["next"]
    if options.statistics:
        for name, count in sorted(met.items()):
            print(f"{count:>12,}  {name}")
    detail = (
        f"seeds {first} to {seed - 1}, {met['stories']} runtimes, {met['load made']} transports "
        f"({met['executions child']} of both with plugins in processes of their own), "
        f"{met['state running']} plugins that ran, {met['state abandoned']} abandoned, "
        f"{met['steps of the hypothesis machine']} steps of the hypothesis machine"
    )
    print(json.dumps({"executions": met["executions"], "failures": 0, "detail": detail, "situations": met}))
    return 0


def _run_child(first: int, last: int, seconds: float, repeat: int) -> tuple[dict[str, Any], int]:
    """The last thing that it said, and its status."""
    command = [sys.executable, "-m", "fuzz.lifecycle", "--seed", str(first), "--child", str(last), "--seconds", str(seconds)]
    command += ["--repeat", str(repeat)]
    said: dict[str, Any] = {"at": first}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
        finally:
            if process.poll() is None and sys.exc_info()[0] is not None:
                process.send_signal(signal.SIGINT)
    return said, process.returncode


def _report(said: dict[str, Any], status: int, met: Counter[str]) -> int:
    seed = said.get("failed", said.get("at"))
    if "failed" in said:
        print(f"{said['error']}\n\nthe plainest story that fails:\n{said['story']}", file=sys.stderr)
    else:
        print(f"the process that played it ended with status {status}", file=sys.stderr)
    print(f"seed {seed}; again: python -m fuzz.lifecycle --seed {seed} --executions 1 --repeat 50", file=sys.stderr)
    print(json.dumps({"executions": met["executions"] + 1, "failures": 1, "detail": f"seed {seed}"}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
