"""``run CONFIG.yaml``: the node, from a configuration file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from supervm_rt.cli.node import add_listen_option, chain_summary, exit_status, run_node
from supervm_rt.cli.output import add_json_option, block_text, print_json
from supervm_rt.errors import ConfigurationError
from supervm_rt.runtime import RuntimeConfig
from supervm_rt.runtime.status import describe
from supervm_rt.trust.policy import PolicyLevel


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser("run", help="run a node from a configuration file")
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    add_listen_option(parser)
    parser.add_argument("--until-idle", action="store_true", help="end when every plugin said end of input and all is committed")
    parser.add_argument("--policy", type=PolicyLevel, choices=list(PolicyLevel), help="instead of the file's (default: strict)")
    add_json_option(parser, "a summary of the run, as the last line,")
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> int:
    config = RuntimeConfig.load(options.config)
    if options.policy is not None:
        config = dataclasses.replace(config, policy=options.policy)
    if options.listen:
        config = dataclasses.replace(config, listen=(*config.listen, *options.listen))
    if not config.plugins and not config.listen:
        raise ConfigurationError(
            f"{options.config}: no plugin could ever be in this node", remedy="write plugins or listen, or give --listen"
        )
    result = run_node(config, until_idle=options.until_idle)
    if options.json:
        print_json(
            {
                "chains": [chain_summary(summary, result.seconds) for summary in result.chains.values()],
                "plugins": [describe(status) for status in result.plugins.values()],
                "seconds": round(result.seconds, 3),
            }
        )
    else:
        for summary in result.chains.values():
            print(f"{summary.chain}: {block_text(summary.tip)}; {summary.blocks} blocks, {summary.reorgs} reorgs in this run")
    return exit_status(result)
