"""What has to become of each plugin of ``plugins/``: one table for all.

A case says two things that depend on no transport: what the plugin does to the process that it runs in (``harm``), and what the
host says of its conduct through the ABI. ``expected`` has one column for each placement.

In the host's own process nothing can be done against harm. There the cases of class *kills its process* are run in a process of
their own, as a positive control, and those that only change their process are seen to have changed it. In a sandboxed child harm
has an outcome too: the call is refused, or the child's end is named; and nothing is ever left.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from supervm_rt import EventKind, PluginState
from supervm_rt.trust.policy import Placement

ABANDONED_LEAVES = frozenset({"slots", "mappings", "threads", "descriptors"})
"""The documented exception: thread, slot (with its descriptor) and mapping of code that never returned."""


@dataclass(frozen=True, slots=True)
class Kills:
    """Ends its process: with this signal, or with this status; None: in one way or another."""

    signal: signal.Signals | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes what belongs to its whole process: names out of ``process_state`` and ``leftovers``, or ``memory``."""

    what: frozenset[str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What the host does with it."""

    state: PluginState = PluginState.UNLOADED
    """Where its life ends, once the host has stopped it where it does not end by itself."""
    failure: str = ""
    """Part of what the plugin is said to have failed of; empty: it is no failure."""
    blame: str = "plugin"
    ends: bool = False
    """It ends by itself; else it is stopped once it said that its misdeed is done."""
    blocks: int | None = None
    """How many of its blocks are kept."""
    position: bytes | None = None
    """The position that is kept, where it matters."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Its refused inputs: how many for each reason."""
    events: tuple[tuple[EventKind, str], ...] = ()
    """Further events, each with a part of its message."""
    leaves: frozenset[str] = frozenset()
    """What may be left of it."""
    later: bool = True
    """Whether the host can still load another plugin. Where it cannot, the dynamic linker's lock is held for ever, and so the
    test is made in a process of its own that ends as the command line does."""
    says_done: bool = True
    """It says when its misdeed is done; else it is stopped as soon as it runs."""
    short: bool = False
    """Calls into it get short deadlines, because one of them does not return."""


@dataclass(frozen=True, slots=True)
class Case:
    """One plugin of ``plugins/``."""

    name: str
    """Its file, without the ending."""
    expected: Mapping[Placement, Expected]
    harm: Kills | Changes | None = None
    chain: str = "dev"
    capability: str = "block_stream"
    heartbeat: str = ""
    language: str = "c"

    @property
    def source(self) -> str:
        """Its file."""
        return f"{self.name}.{self.language}"


def _contained(
    name: str,
    expected: Expected,
    *,
    child: Expected | None = None,
    chain: str = "dev",
    capability: str = "block_stream",
    heartbeat: str = "",
) -> Case:
    columns = {Placement.IN_PROCESS: expected, Placement.CHILD: child or expected}
    return Case(name, columns, chain=chain, capability=capability, heartbeat=heartbeat)


def _abandoned(
    name: str, failure: str, *, child: Expected | None = None, later: bool = True, blocks: int | None = None, ends: bool = True
) -> Case:
    """``child``: where it is not the same failure, without anything being left."""
    return _contained(
        name,
        Expected(
            PluginState.ABANDONED,
            failure,
            ends=ends,
            blocks=blocks,
            events=((EventKind.PLUGIN_ABANDONED, "its thread, slot and mapping stay until the process ends"),),
            leaves=ABANDONED_LEAVES,
            later=later,
            short=True,
        ),
        child=child or Expected(failure=failure, ends=ends, blocks=blocks, short=True),
    )


def _kills(
    name: str,
    number: signal.Signals | None = None,
    status: int | None = None,
    *,
    child: Expected | None = None,
    language: str = "c",
) -> Case:
    """``child``: where it does not end its process there, because the call is refused."""
    named = f"it crashed ({number.name})" if number else f"its process ended by itself with status {status}"
    return Case(name, {Placement.CHILD: child or Expected(failure=named, ends=True)}, Kills(number, status), language=language)


def _changes(name: str, *what: str, child: Expected, blocks: int | None = None) -> Case:
    columns = {Placement.IN_PROCESS: Expected(leaves=frozenset(what), blocks=blocks), Placement.CHILD: child}
    return Case(name, columns, Changes(frozenset(what)))


CASES = (
    # ---- what it exports, and what it says of itself
    _contained("missing_export", Expected(failure="does not export plugin_stop", ends=True)),
    _contained("wrong_version", Expected(failure="version is '2.0.0' in the binary and '1.0.0' in the manifest", ends=True)),
    _contained("wrong_abi", Expected(failure="plugin_init answered 99", ends=True)),
    _contained("manifest_null", Expected(failure="plugin_get_manifest_json returned NULL", ends=True)),
    _contained("manifest_endless", Expected(failure="plugin_get_manifest_json returned more than 1 MiB", ends=True)),
    _contained("manifest_not_utf8", Expected(failure="is not JSON", ends=True)),
    # ---- calls that fail, block, or never return
    _contained("init_fails", Expected(failure="plugin_init answered 7", ends=True)),
    _contained("start_fails", Expected(failure="plugin_start answered 8", ends=True, blocks=10)),
    _contained("stop_fails", Expected(failure="plugin_stop answered 9", blocks=10)),
    _contained("start_blocks", Expected(failure="plugin_start did not return within 1 s", ends=True, short=True)),
    _abandoned("start_never_returns", "plugin_start did not return within 1 s"),
    _abandoned("ends_hosts_thread", "plugin_start did not return within 1 s"),
    _abandoned("init_loops", "plugin_init did not return within 1 s"),
    _abandoned(
        "manifest_loops",
        "plugin_get_manifest_json did not return within 3 s",
        child=Expected(failure="loading did not return within 3 s", ends=True, short=True),
    ),
    _abandoned("stop_hangs", "plugin_stop did not return within 1 s", ends=False, blocks=10),
    _abandoned("ignores_stopping", "plugin_stop did not return within 1 s", ends=False),
    _abandoned("constructor_hangs", "loading did not return within 3 s", later=False),
    # What is left when it is unloaded goes with its process.
    _abandoned(
        "destructor_hangs",
        "unloading did not return within 1 s",
        child=Expected(blocks=10),
        ends=False,
        later=False,
        blocks=10,
    ),
    _abandoned("leaves_thread", "it left threads behind", child=Expected(), ends=False),
    _abandoned("leaves_renamed_thread", "it left threads behind", child=Expected(), ends=False),
    _abandoned("keeps_reservation", "it never committed what it reserved", child=Expected(blocks=10), ends=False, blocks=10),
    _abandoned(
        "release_hangs",
        "unloading did not return within 1 s",
        # The payload is copied into the ring, and released by the call itself.
        child=Expected(failure="plugin_start did not return within 1 s", ends=True, blocks=1, short=True),
        ends=False,
        blocks=1,
    ),
    # ---- calls into the host that are wrong
    _contained("null_everywhere", Expected(blocks=0)),
    _contained("foreign_handle", Expected(blocks=0)),
    _contained(
        "huge_lengths",
        Expected(blocks=10, events=((EventKind.PLUGIN_LOG, "x" * 4096), (EventKind.PLUGIN_METRIC, f"{'x' * 256} = 1"))),
    ),
    _contained(
        "non_utf8",
        Expected(
            blocks=10,
            events=(
                (EventKind.PLUGIN_LOG, "\ufffd\ufffd\ufffd \ufffd( \ufffd\ufffd\ufffd \\x1b[2J\\x07\\r\\n end"),
                (EventKind.PLUGIN_METRIC, "\ufffd \\x1b[31m = 1"),
            ),
        ),
    ),
    _contained(
        "nonsense_numbers",
        Expected(
            failure="gave up (reason -2147483648)",
            ends=True,
            events=(
                (EventKind.PLUGIN_LOG, "lowest level"),
                (EventKind.PLUGIN_LOG, "highest level"),
                (EventKind.PLUGIN_METRIC, "nan = nan"),
                (EventKind.PLUGIN_METRIC, "infinity = -inf"),
            ),
        ),
    ),
    _contained("calls_after_stop", Expected(blocks=10)),
    _contained("many_threads", Expected(blocks=400)),
    _contained("signal_handler", Expected(blocks=10, events=((EventKind.PLUGIN_LOG, "from a signal handler"),))),
    _contained("wrong_struct_size", Expected(blocks=1)),
    _contained("commits_without_reserve", Expected(blocks=10)),
    _contained("release_calls_host", Expected(blocks=21, events=((EventKind.PLUGIN_LOG, "out of a release"),))),
    _contained("ends_input_twice", Expected(blocks=10, events=((EventKind.PLUGIN_END_OF_INPUT, "all of it committed"),))),
    _contained("floods", Expected(events=((EventKind.PLUGIN_DROPPED, "came faster than they were taken"),))),
    _contained("asks_for_what_was_not_granted", Expected(failure="plugin_start answered 77", ends=True), capability="rpc_proxy"),
    _contained(
        "asks_for_shutdown_in_init",
        Expected(ends=True, events=((EventKind.PLUGIN_SHUTDOWN_REQUESTED, "asks to be shut down (reason 0)"),)),
    ),
    _contained(
        "gives_up",
        Expected(
            failure="gave up (reason 42)",
            ends=True,
            blocks=10,
            events=((EventKind.PLUGIN_SHUTDOWN_REQUESTED, "asks to be shut down (reason 42)"),),
        ),
    ),
    _contained(
        "silent",
        Expected(failure="no sign of life", ends=True, events=((EventKind.PLUGIN_SILENT, "allowed: 0.2 s"),)),
        heartbeat="200ms",
    ),
    # ---- blocks and statements that are wrong
    _contained(
        "garbage_blocks",
        Expected(
            PluginState.QUARANTINED,
            failure="more than 20 of its blocks were rejected",
            ends=True,
            blocks=0,
            events=((EventKind.CHAIN_REJECTED, "malformed"), (EventKind.PLUGIN_QUARANTINED, "not started again by itself")),
        ),
        chain="bitcoin",
    ),
    _contained("one_bad_block", Expected(blocks=10, position=b"behind", rejected={"malformed": 1})),
    _contained(
        "lies_about_heights",
        Expected(blocks=11, rejected={"height": 2, "malformed": 1, "self-parent": 1, "conflict": 2}),
    ),
    _contained("claims_finality", Expected(blocks=10, rejected={"not-canonical": 4, "below-final": 2})),
    # ---- the ring itself
    _contained("corrupts_head", Expected(PluginState.QUARANTINED, "corrupt ring", ends=True, blocks=0, short=True)),
    _contained("corrupts_record", Expected(PluginState.QUARANTINED, "corrupt ring", ends=True, blocks=0, short=True)),
    # ---- what changes its process: seen to be changed in process; of a child nothing is left
    _changes(
        "changes_process",
        "directory",
        "umask",
        "environment",
        "locale",
        child=Expected(failure="plugin_start answered 9", ends=True, blocks=0),
        blocks=10,
    ),
    _changes("changes_signals", "signals", child=Expected(blocks=10), blocks=10),
    _changes("leaks_descriptors", "descriptors", child=Expected(blocks=10), blocks=10),
    _changes("forks", "children", child=Expected(failure="plugin_start answered 14", ends=True, blocks=10), blocks=10),
    _changes("exhausts_memory", "memory", child=Expected(failure="plugin_start answered 1", ends=True)),
    # ---- what kills its process: a positive control in process; the end of a child is named, where it could not be refused
    _kills("throws", signal.SIGABRT, language="cpp"),
    _kills("frees_hosts_memory", signal.SIGABRT),
    _kills("frees_literal", signal.SIGABRT),
    _kills("frees_twice", signal.SIGABRT),
    _kills("corrupts_heap", signal.SIGABRT),
    _kills("exits", status=3),
    _kills("exits_at_once", status=4),
    _kills("aborts", signal.SIGABRT),
    _kills("crashes", signal.SIGSEGV),
    _kills("crashes_in_constructor", signal.SIGSEGV),
    _kills("overflows_stack", signal.SIGSEGV),
    _kills("kills_itself", signal.SIGKILL, child=Expected(says_done=False)),
    _kills("unmaps_host", signal.SIGSEGV),
    _kills("closes_descriptors", child=Expected(failure="plugin_start answered -1", ends=True)),
)
