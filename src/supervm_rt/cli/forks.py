"""``forks replay FILE``: a reorg sequence through the real fork logic and a real store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from supervm_rt.chain.vectors import VectorError
from supervm_rt.cli.output import add_json_option, print_json
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
    try:
        # What is not UTF-8 is a line's matter: the parser names the line.
        file = sys.stdin if str(options.file) == "-" else options.file.open(encoding="utf-8", errors="surrogateescape")
        with file:
            for answer in replay(file):
                print_json(answer) if options.json else print(_text(answer))
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"supervm-rt: {options.file}: cannot be read ({error.strerror})", file=sys.stderr)
        return 2
    except VectorError as error:
        sys.stdout.flush()
        print(f"supervm-rt: {options.file}: {error}", file=sys.stderr)
        return 2
    return 0


def _text(answer: dict[str, Any]) -> str:
    verdict = f"{answer['verdict']} ({answer['reason']})" if "reason" in answer else answer["verdict"]
    events = " ".join(f"{step}:{block!a}" for step, block in answer["events"])
    tip = answer["tip"]
    where = f"tip {tip['hash']!a} at {tip['height']}" if tip else "no tip"
    return f"{answer['input']!a}  {verdict}  {events or '-'}  {where}"
