"""``plugins list``: the plugins of a running node, where each runs and what keeps it to its limits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from supervm_rt.cli.output import add_json_option, print_json, print_table
from supervm_rt.runtime.status import ask_status


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser("plugins", help="ask a running node about its plugins")
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    action: argparse.ArgumentParser = actions.add_parser(
        "list",
        help="each plugin's state and generation, where it runs, how it is confined, what enforces its quotas",
        description="Shows each plugin of the node that has the store open: its state and generation, where it runs, whether its "
        "sandbox is full or degraded, and what enforces each quota of its manifest.",
    )
    action.add_argument("--store", type=Path, required=True, metavar="FILE", help="the store of the running node")
    add_json_option(action)
    action.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    answer = ask_status(options.store)
    if options.json:
        print_json(answer)
        return 0
    print_table(
        {
            "plugin": plugin["plugin"],
            "version": plugin["version"],
            "chain": plugin["chain"],
            "state": plugin["state"],
            "life": plugin["generation"],
            "runs": plugin["placement"] or "-",
            "sandbox": plugin["sandbox"] or "-",
            "quotas": ", ".join(f"{name} by {means}" for name, means in plugin["quotas"].items()) or "-",
            "failure": plugin["failure"] or "-",
        }
        for plugin in answer["plugins"]
    )
    return 0
