"""The tree of commands, and the one place where errors become an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from supervm_rt import __version__
from supervm_rt.cli import chain, demo, forks, mirror, plugin, plugins, run, sink, tail
from supervm_rt.errors import ConfigurationError, ManifestError, SuperVMError

FAILED = 1
USAGE = 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="supervm-rt", description="Hosts SuperVM chain plugins and mirrors their chains into one chain-neutral IR."
    )
    parser.add_argument("--version", action="version", version=f"supervm-rt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (run, mirror, chain, tail, sink, plugin, plugins, forks, demo):
        module.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status; never raises what a user can cause."""
    # A program that was started with its output closed has none: what it says then goes nowhere.
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except (ConfigurationError, ManifestError) as error:
        print(f"supervm-rt: {error}", file=sys.stderr)
        return USAGE
    except SuperVMError as error:
        print(f"supervm-rt: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader went away (``| head``): nothing more can be said, and the interpreter must not try to at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"supervm-rt: the answer cannot be written ({error.strerror})", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("supervm-rt: interrupted", file=sys.stderr)
        return FAILED
    return status
