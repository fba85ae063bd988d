"""Invariant: a target in Python is run by the same engine, in a process of its own, and guided by the branches of what it names.

atheris instruments the modules that are imported inside ``instrumented``; it brings libFuzzer.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from fuzz.campaign import Campaign, CampaignError


def campaign(name: str, *, seeds: Callable[[], dict[str, bytes]], max_length: int) -> Campaign:
    """The campaign whose target is the module ``fuzz.NAME.target``."""

    def command() -> list[str]:
        if importlib.util.find_spec("atheris") is None:
            raise CampaignError("atheris is not installed: python -m pip install --constraint constraints.txt atheris")
        (Campaign(name, list, dict, 0).folder).mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-m", f"fuzz.{name}.target"]

    return Campaign(name, command, seeds, max_length)


def run(test: Callable[[bytes], None]) -> None:
    """Hands the command line to the engine. Does not return.

    A failure is written down here: the engine's own way out of a Python exception can be cut short by its alarm.
    """
    import atheris

    prefix = next((word.partition("=")[2] for word in sys.argv if word.startswith("-artifact_prefix=")), "")
    done = 0

    def watched(data: bytes) -> None:
        nonlocal done
        done += 1
        try:
            test(data)
        except BaseException:
            traceback.print_exc()
            path = Path(f"{prefix}crash-{hashlib.sha1(data).hexdigest()}")
            if prefix:
                path.write_bytes(data)
                print(f"Test unit written to {path}", file=sys.stderr)
            print(f"stat::number_of_executed_units: {done}", file=sys.stderr, flush=True)
            os._exit(77)

    atheris.Setup(sys.argv, watched)
    atheris.Fuzz()
