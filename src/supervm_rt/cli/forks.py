"""``forks replay FILE``: a reorg sequence through the real fork logic and a real store."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervm_rt.chain.vectors import VectorError
from supervm_rt.cli.output import add_json_option, print_json
from supervm_rt.errors import ConfigurationError
from supervm_rt.store import replay


def add_commands(commands: Any) -> None:
    """Adds the commands."""
    parser: argparse.ArgumentParser = commands.add_parser("forks", help="try the fork logic")
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    action: argparse.ArgumentParser = actions.add_parser("replay", help="replay a file of fork vectors; one line out for each in")
    action.add_argument("file", type=Path, metavar="FILE", help="JSON Lines, the set-up first; - for standard input")
    add_json_option(action, "verdict, events and tip of each input")
    action.set_defaults(command=_replay)


def _replay(options: argparse.Namespace) -> int:
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the temporary store is taken away
    try:
        for answer in replay(_lines(options.file)):
            print_json(answer) if options.json else print(_text(answer))
    except VectorError as error:
        sys.stdout.flush()
        raise ConfigurationError(f"{options.file}: {error.message}", remedy=error.remedy) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file as they come. What is not UTF-8 is a line's matter: the parser names the line."""
    standard_input = str(path) == "-"
    try:
        source = 0 if standard_input else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(source, encoding="utf-8-sig", errors="surrogateescape", closefd=not standard_input) as file:
            yield from file
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: cannot be read ({why})", remedy="name a readable file, or -") from None


def _text(answer: dict[str, Any]) -> str:
    verdict = f"{answer['verdict']} ({answer['reason']})" if "reason" in answer else answer["verdict"]
    events = " ".join(f"{step}:{block!a}" for step, block in answer["events"])
    tip = answer["tip"]
    where = f"tip {tip['hash']!a} at {tip['height']}" if tip else "no tip"
    return f"{answer['input']!a}  {verdict}  {events or '-'}  {where}"
