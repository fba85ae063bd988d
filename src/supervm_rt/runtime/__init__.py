"""The runtime: configuration, the life of each plugin, intake, and the one sink of events and decisions."""

from supervm_rt.runtime.chains import ChainSummary
from supervm_rt.runtime.config import CHAIN_DEFAULT, PluginConfig, RestartLimits, RuntimeConfig
from supervm_rt.runtime.lifecycle import PluginState
from supervm_rt.runtime.runtime import Runtime, open_runtime
from supervm_rt.runtime.sink import EventSink
from supervm_rt.runtime.supervisor import PluginStatus

__all__ = [
    "CHAIN_DEFAULT",
    "ChainSummary",
    "EventSink",
    "PluginConfig",
    "PluginState",
    "PluginStatus",
    "RestartLimits",
    "Runtime",
    "RuntimeConfig",
    "open_runtime",
]
