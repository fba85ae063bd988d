"""What the runtime reports: every event about a plugin or a chain, and every decision."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class EventKind(enum.StrEnum):
    """What a host event is about. The text is stable: programs match on it."""

    POLICY_DECISION = "policy.decision"
    PLUGIN_REGISTERED = "plugin.registered"
    PLUGIN_STATE = "plugin.state"
    PLUGIN_CONFINED = "plugin.confined"
    PLUGIN_FAILED = "plugin.failed"
    PLUGIN_ABANDONED = "plugin.abandoned"
    PLUGIN_QUARANTINED = "plugin.quarantined"
    PLUGIN_RESTARTING = "plugin.restarting"
    PLUGIN_SILENT = "plugin.silent"
    PLUGIN_SHUTDOWN_REQUESTED = "plugin.shutdown-requested"
    PLUGIN_END_OF_INPUT = "plugin.end-of-input"
    PLUGIN_LOG = "plugin.log"
    PLUGIN_METRIC = "plugin.metric"
    PLUGIN_DROPPED = "plugin.dropped"
    PLUGIN_QUOTA = "plugin.quota"
    PLUGIN_NETWORK = "plugin.network"
    TRANSACTION_SUBMITTED = "transaction.submitted"
    CHAIN_OPENED = "chain.opened"
    CHAIN_REORG = "chain.reorg"
    CHAIN_REJECTED = "chain.rejected"
    REMOTE_LISTENING = "remote.listening"
    REMOTE_REFUSED = "remote.refused"
    REMOTE_UNPACKING = "remote.unpacking"
    REMOTE_UNCHECKED = "remote.unchecked"
    REMOTE_CONNECTED = "remote.connected"
    STORE_FAILED = "store.failed"


class Severity(enum.IntEnum):
    """How much an event asks for attention; the numbers are those of host_log."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class HostEvent:
    """One event or decision, as the sink hands it to its receivers."""

    time: float
    """Seconds since the epoch, by the runtime's clock."""
    kind: EventKind
    severity: Severity
    message: str
    """One line for a person."""
    plugin: str | None = None
    """The plugin's id in this runtime."""
    generation: int | None = None
    """Which life of the plugin."""
    chain: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)
    """The same for a program: values that JSON can hold."""
