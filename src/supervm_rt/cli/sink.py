"""``sink``: a chain's events into a database, with the cursor, so that each is there exactly once."""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from supervm_rt.cli.tail import height, watch_signals
from supervm_rt.errors import ConfigurationError
from supervm_rt.sinks import drain
from supervm_rt.store.feed import BEGINNING, open_feed


def add_commands(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser("sink", help="keep a chain's events and IR in a database")
    kinds = parser.add_subparsers(title="databases", required=True, metavar="DATABASE")
    postgres: argparse.ArgumentParser = kinds.add_parser("postgres", help="PostgreSQL; needs supervm-rt[postgres]")
    postgres.add_argument("chains", metavar="CHAIN", nargs="+", help="the chain's name in the store")
    postgres.add_argument("--store", type=Path, required=True, metavar="FILE")
    postgres.add_argument("--to", required=True, metavar="CONNECTION", help="as libpq takes it: 'host=… dbname=…', or a URL")
    postgres.add_argument("--schema", default="supervm", help="where its tables are (default: supervm)")
    postgres.add_argument("--name", default="supervm", help="under which its cursor is kept (default: supervm)")
    postgres.add_argument("--from", type=height, metavar="HEIGHT", dest="height", help="begin here while there is no cursor")
    postgres.add_argument("--follow", action="store_true", help="wait for more at the end")
    postgres.set_defaults(command=_postgres)


def _postgres(options: argparse.Namespace) -> int:
    try:
        module = importlib.import_module("supervm_rt.sinks.postgres")
    except ImportError as error:
        raise ConfigurationError(
            f"PostgreSQL cannot be reached without psycopg ({error})", remedy="install supervm-rt[postgres]"
        ) from None
    failure = trio.run(_run, options, partial(module.PostgresSink, options.to, name=options.name, schema=options.schema))
    if failure is not None:
        raise failure
    return 0


async def _run(options: argparse.Namespace, make: Any) -> Exception | None:
    """What it failed with, so that it comes out bare."""
    failure: Exception | None = None
    async with trio.open_nursery() as watchers:
        with trio.CancelScope() as scope:
            await watchers.start(watch_signals, scope)
            try:
                async with open_feed(options.store) as feed, make() as sink:
                    start = BEGINNING if options.height is None else options.height
                    count = await drain(feed, options.chains, sink, start=start, follow=options.follow)
                    print(f"supervm-rt: {count} events written", file=sys.stderr)
            except Exception as error:
                failure = error
        watchers.cancel_scope.cancel()
    return failure
