"""``mirror``: one plugin into one store, with no configuration file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from supervm_rt.cli.node import NodeResult, add_listen_option, chain_summary, exit_status, run_node
from supervm_rt.cli.output import add_json_option, block_text, print_fields, print_json
from supervm_rt.cli.tail import height
from supervm_rt.errors import ConfigurationError
from supervm_rt.model.chain import ForkMode
from supervm_rt.model.manifest import RestartPolicy
from supervm_rt.runtime import CHAIN_DEFAULT, ChainSummary, PluginConfig, RuntimeConfig
from supervm_rt.runtime.config import parse_age
from supervm_rt.store.feed import Kept, Retention
from supervm_rt.trust.policy import Placement, PolicyLevel


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser("mirror", help="mirror one plugin's chain into a store")
    parser.add_argument("--plugin", type=Path, required=True, metavar="DIR", help="the folder that holds plugin.yaml")
    parser.add_argument("--store", type=Path, required=True, metavar="FILE", help="the store; made where there is none")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="one of the plugin's settings",
    )
    parser.add_argument("--chain", metavar="NAME", help="the name to mirror the chain under (default: the manifest's chain)")
    parser.add_argument(
        "--mode", type=ForkMode, choices=list(ForkMode), help="how the canonical chain is chosen (default: the chain's)"
    )
    parser.add_argument(
        "--final-depth",
        type=_final_depth,
        default=CHAIN_DEFAULT,
        metavar="N",
        help="blocks deeper than this are final; or none (default: the chain's)",
    )
    parser.add_argument(
        "--keep-final", type=_age, metavar="AGE", help="how long events of final blocks are kept, such as 30d (default: forever)"
    )
    parser.add_argument(
        "--keep-undone", type=_age, metavar="AGE", help="the same of undone blocks, at least as long (default: as --keep-final)"
    )
    parser.add_argument(
        "--keep-events",
        type=height,
        default=10_000,
        metavar="N",
        help="so many of the last are kept anyhow (default: 10000)",
    )
    parser.add_argument("--policy", type=PolicyLevel, choices=list(PolicyLevel), default=PolicyLevel.STRICT)
    parser.add_argument(
        "--placement",
        type=Placement,
        choices=[Placement.IN_PROCESS, Placement.CHILD],
        help="where its code runs (default: in a sandbox where its manifest or the policy wants one)",
    )
    add_listen_option(parser)
    parser.add_argument("--until-idle", action="store_true", help="end when the plugin said end of input and all is committed")
    add_json_option(parser, "a summary of the run, as the last line,")
    parser.set_defaults(command=_mirror)


def setting(text: str) -> tuple[str, object]:
    """KEY=VALUE; the value is taken as JSON where it is JSON (7, true, "7"), else as the text that it is."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def _final_depth(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of blocks nor none")
    return int(text)


def _age(text: str) -> float:
    try:
        return parse_age(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _retention(options: argparse.Namespace) -> Retention | None:
    final, undone, events = options.keep_final, options.keep_undone, options.keep_events
    if final is None and undone is not None:
        raise ConfigurationError(
            "--keep-undone alone deletes nothing: events of undone blocks are kept at least as long as those of final ones",
            remedy="give --keep-final too",
        )
    if final is None:
        return None
    return Retention(Kept(final, events), None if undone is None else Kept(undone, events))


def _mirror(options: argparse.Namespace) -> int:
    # A plugin that fails is not started again: the caller is told.
    plugin = PluginConfig(
        path=options.plugin,
        chain=options.chain,
        mode=options.mode,
        final_depth=options.final_depth,
        restart=RestartPolicy.NEVER,
        placement=options.placement,
        settings=dict(options.settings),
    )
    config = RuntimeConfig(
        store=options.store,
        policy=options.policy,
        plugins=(plugin,),
        retention=_retention(options),
        listen=tuple(options.listen),
    )
    result = run_node(config, until_idle=options.until_idle)
    status = exit_status(result)
    show(result, as_json=options.json)
    return status


def show(result: NodeResult, *, as_json: bool) -> None:
    """The summary of a run over one chain."""
    status = next(iter(result.plugins.values()))
    summary = result.chains.get(status.chain) or ChainSummary(status.chain)  # a plugin need not stream blocks
    if as_json:
        print_json(chain_summary(summary, result.seconds))
        return
    print_fields(
        {
            "chain": summary.chain,
            "tip": block_text(summary.tip),
            "final": block_text(summary.final),
            "blocks": f"{summary.blocks} in this run, with {summary.transactions} transactions",
            "reorgs": f"{summary.reorgs}, the deepest of {summary.deepest_reorg} blocks" if summary.reorgs else "0",
            "rejected": summary.rejections,
            "read": f"{summary.raw_bytes / 1e6:.1f} MB in {result.seconds:.2f} s",
        }
    )
