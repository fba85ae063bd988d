"""Running a node from the command line: signals, what is shown meanwhile, and what is told at the end."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from supervm_rt.cli.output import block_ref
from supervm_rt.errors import ConfigurationError, SuperVMError
from supervm_rt.model.events import EventKind, HostEvent, Severity
from supervm_rt.runtime import ChainSummary, PluginStatus, Runtime, RuntimeConfig, open_runtime
from supervm_rt.transports.remote.addresses import UnixAddress

_SHOWN = frozenset(
    {
        EventKind.CHAIN_REJECTED,
        EventKind.CHAIN_REORG,
        EventKind.PLUGIN_ABANDONED,
        EventKind.PLUGIN_CONFINED,
        EventKind.PLUGIN_DROPPED,
        EventKind.PLUGIN_FAILED,
        EventKind.PLUGIN_LOG,
        EventKind.PLUGIN_QUARANTINED,
        EventKind.PLUGIN_QUOTA,
        EventKind.PLUGIN_REGISTERED,
        EventKind.PLUGIN_RESTARTING,
        EventKind.PLUGIN_SHUTDOWN_REQUESTED,
        EventKind.PLUGIN_SILENT,
        EventKind.POLICY_DECISION,
        EventKind.REMOTE_LISTENING,
        EventKind.REMOTE_REFUSED,
    }
)
_SECONDS_BETWEEN_LINES = 5.0
_MOST_REJECTIONS_SHOWN = 20


def add_listen_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--listen``."""
    parser.add_argument(
        "--listen",
        type=_address,
        action="append",
        default=[],
        metavar="unix:PATH",
        help="serve gRPC there, for remote plugins and subscribers; TCP with TLS is for a configuration file",
    )


def _address(text: str) -> UnixAddress:
    kind, _, path = text.partition(":")
    if kind != "unix" or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not unix:PATH")
    try:
        return UnixAddress(Path(path))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How a run ended."""

    chains: Mapping[str, ChainSummary]
    plugins: Mapping[str, PluginStatus]
    seconds: float
    interrupted: bool
    """A signal ended it before it was idle, where that had been asked for."""

    @property
    def failed(self) -> list[PluginStatus]:
        """Plugins that did not end well."""
        return [status for status in self.plugins.values() if status.failure is not None]


def run_node(config: RuntimeConfig, *, until_idle: bool) -> NodeResult:
    """Runs a node until its plugins are idle (where asked), have all ended, or a signal comes."""
    return trio.run(_run, config, until_idle)


async def _run(config: RuntimeConfig, until_idle: bool) -> NodeResult:
    started = time.monotonic()
    console = _Console(stderr=True, highlight=False, soft_wrap=True)
    runtime: Runtime | None = None
    failure: SuperVMError | None = None
    complete = not until_idle
    async with trio.open_nursery() as watchers:
        with trio.CancelScope() as scope:
            await watchers.start(_watch_signals, scope)
            try:
                async with open_runtime(config, receivers=(_Narrator(console),)) as runtime:
                    watchers.start_soon(_show_progress, runtime, console)
                    await (runtime.wait_idle() if until_idle else runtime.wait_finished())
                    complete = True
            except SuperVMError as error:
                failure = error
        watchers.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if runtime is None:  # a signal came before it had opened
        raise KeyboardInterrupt
    return NodeResult(runtime.chains, runtime.plugins, time.monotonic() - started, interrupted=not complete)


async def _watch_signals(scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """The first SIGINT or SIGTERM stops the node in good order, the second at once: the store is whole either way."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if scope.cancel_called:
                os._exit(128 + number)
            scope.cancel()
            with contextlib.suppress(OSError):
                print("supervm-rt: stopping (once more to stop at once)", file=sys.stderr)


class _Console(Console):
    """Falls silent where nobody reads any more; the node goes on."""

    def on_broken_pipe(self) -> None:
        """Called for a closed pipe; the default ends the process."""
        self.quiet = True


class _Narrator:
    """Shows events as they come: what an operator should know, one line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rejected = 0

    def __call__(self, event: HostEvent) -> None:
        if event.kind not in _SHOWN or event.severity < Severity.INFO:
            return
        if event.kind is EventKind.CHAIN_REJECTED:
            self._rejected += 1
            if self._rejected > _MOST_REJECTIONS_SHOWN:
                return
        colour = {Severity.WARNING: "yellow", Severity.ERROR: "red"}.get(event.severity, "default")
        source = f"{event.plugin} says: " if event.kind is EventKind.PLUGIN_LOG else ""
        self._console.print(f"[{colour}]{escape(source + event.message)}[/]")
        if event.kind is EventKind.CHAIN_REJECTED and self._rejected == _MOST_REJECTIONS_SHOWN:
            self._console.print("further rejections are counted, not shown")


async def _show_progress(runtime: Runtime, console: Console) -> None:
    """A live line on a terminal, a plain line now and then elsewhere."""
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
            task = progress.add_task("starting")
            while True:
                progress.update(task, description=escape(_progress_text(runtime)), refresh=True)
                await trio.sleep(0.1)
    shown = ""
    while True:
        await trio.sleep(_SECONDS_BETWEEN_LINES)
        text = _progress_text(runtime)
        if text != shown:
            console.print(escape(text))
            shown = text


def _progress_text(runtime: Runtime) -> str:
    return "; ".join(
        f"{summary.chain}: height {summary.tip.height if summary.tip else '-'}, {summary.blocks} blocks, "
        f"{summary.transactions} transactions, {summary.reorgs} reorgs, {summary.raw_bytes / 1e6:.1f} MB"
        for summary in runtime.chains.values()
    )


def chain_summary(summary: ChainSummary, seconds: float) -> dict[str, object]:
    """What a run did to one chain, for JSON."""
    return {
        "chain": summary.chain,
        "tip": block_ref(summary.tip),
        "blocks": summary.blocks,
        "transactions": summary.transactions,
        "reorgs": summary.reorgs,
        "deepest_reorg": summary.deepest_reorg,
        "rejected": [
            {"hash": rejection.hash.hex() if rejection.hash else None, "reason": str(rejection.reason)}
            for rejection in summary.rejected.values()
        ],
        "bytes": summary.raw_bytes,
        "seconds": round(seconds, 3),
    }


def exit_status(result: NodeResult) -> int:
    """0, or 1 with a line about each plugin that did not end well; 2 where all that is wrong is what was configured."""
    for status in result.failed:
        print(f"supervm-rt: {status.failure}", file=sys.stderr)
    if result.failed:
        return 2 if all(isinstance(status.failure, ConfigurationError) for status in result.failed) else 1
    if result.interrupted:
        print("supervm-rt: stopped before all was mirrored; the same command goes on from here", file=sys.stderr)
        return 1
    return 0
