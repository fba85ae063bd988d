"""``python -m tests.crash``: goes through all crash points, or through every k-th.

Ends with a line of JSON, {"executions": n, "failures": n, "detail": "..."}. Status 0: all recovered; 1: not; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TextIO

from tests.crash import points, shim
from tests.crash.judge import Wrong
from tests.crash.points import ACTIONS, Grounds, Point, Start


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="tests.crash", description="Goes through the crash points of a run.")
    parser.add_argument("--action", action="append", choices=ACTIONS, help="only this; may be given again (default: all)")
    parser.add_argument("--start", choices=("fresh", "resumed", "replay"), help="only these runs (default: all)")
    parser.add_argument("--at", type=int, help="only this call")
    parser.add_argument("--until", type=int, default=sys.maxsize, metavar="N", help="only the first N calls")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="one of K parts of the points (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="which part of the K")
    parser.add_argument(
        "--seeds", type=int, default=points.POWER_SEEDS, help="states tried for each place of a power cut (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one for each CPU)")
    parser.add_argument("--first", action="store_true", help="each process ends at its first failure")
    parser.add_argument("--words", action="store_true", help="show what runs that met an error said at the end")
    options = parser.parse_args(arguments)
    if min(options.every, options.jobs, options.seeds) < 1:
        parser.error("--every, --jobs and --seeds are 1 or more")
    if not shim.preloaded():
        shim.start_again_with_it()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return campaign(options)
    except KeyboardInterrupt:
        return 1
    except Wrong as error:
        print(f"what the points are compared with is wrong itself: {error}", file=sys.stderr)
        print(json.dumps({"executions": 0, "failures": 1, "detail": "undisturbed runs went wrong"}))
        return 1


def campaign(options: argparse.Namespace) -> int:
    """Goes through the points that are asked for, and tells."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="supervm-crash-") as folder:
        scratch = Path(folder)
        grounds = Grounds(scratch, shim.Shim(), {})
        grounds.prefixes = points.right_answers(grounds)
        chosen = []
        for start in points.starts(grounds, options.start):
            found = [
                point
                for point in points.points(start, tuple(options.action or ACTIONS), options.seeds)
                if options.at in {None, point.at} and point.at <= options.until
            ]
            print(f"{start.name}: {len(start.counted)} calls, {len(found)} points", file=sys.stderr)
            # Shuffled, always in the same way, so that a part has points of every action; the parts of all seeds are the whole.
            Random(0).shuffle(found)
            chosen.append((start, found[options.seed % options.every :: options.every]))
        tried, failures, words = _share(grounds, chosen, options.jobs, first=options.first)
    seconds = time.monotonic() - begun
    for (start_name, action), number in sorted(tried.items()):
        print(f"{start_name:<8} {action:<10} {number:>6}", file=sys.stderr)
    if options.words:
        for said, number in words.most_common():
            print(f"{number:>6} {said}", file=sys.stderr)
    for point, wrong in failures[:20]:
        print(f"\n{point}: {wrong}", file=sys.stderr)
    detail = f"{len(failures)} of {sum(tried.values())} crash points not recovered, {seconds:.0f} s with {options.jobs} processes"
    print(json.dumps({"executions": sum(tried.values()), "failures": len(failures), "detail": detail}))
    return 1 if failures else 0


def _share(
    grounds: Grounds, chosen: list[tuple[Start, list[Point]]], jobs: int, *, first: bool
) -> tuple[Counter[tuple[str, str]], list[tuple[str, str]], Counter[str]]:
    """Goes through the points in several processes, each of which forks its own runs."""
    pipes: list[tuple[int, TextIO]] = []
    for job in range(jobs):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work(grounds, [(start, found[job::jobs]) for start, found in chosen], os.fdopen(writing, "w"), job, first=first)
        os.close(writing)
        pipes.append((child, os.fdopen(reading)))
    tried: Counter[tuple[str, str]] = Counter()
    failures: list[tuple[str, str]] = []
    words: Counter[str] = Counter()
    statuses: list[int] = []
    try:
        for _, pipe in pipes:
            for line in pipe:
                start, action, point, wrong, said = json.loads(line)
                tried[start, action] += 1
                if wrong:
                    failures.append((point, wrong))
                if said:
                    words[said] += 1
    except BaseException:
        for child, _ in pipes:
            os.kill(child, signal.SIGTERM)
        raise
    finally:
        for child, pipe in pipes:
            pipe.close()
            statuses.append(os.waitpid(child, 0)[1])
    if any(statuses):
        raise Wrong(f"processes of the campaign ended with the statuses {statuses}")
    return tried, failures, words


def _work(grounds: Grounds, chosen: list[tuple[Start, list[Point]]], pipe: TextIO, job: int, *, first: bool) -> None:
    def report(point: Point, wrong: str, said: str) -> None:
        print(json.dumps([point.start, point.action, str(point), wrong, said]), file=pipe, flush=True)
        if wrong and first:
            raise StopIteration

    status = 1
    try:
        own = Grounds(grounds.scratch / f"job-{job}", shim.Shim(), grounds.prefixes)
        # What every run would do first is done once; what is frozen is not copied by each child's garbage collector.
        command_line = importlib.import_module("supervm_rt.cli.main")
        parser = command_line.build_parser()
        command_line.build_parser = lambda: parser  # type: ignore[attr-defined]
        gc.collect()
        gc.freeze()
        with pipe:
            for start, found in chosen:
                points.go_through(own, start, found, report)
        status = 0
    except StopIteration:
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
