"""supervm-rt: the runtime that hosts SuperVM's chain plugins.

Embed it in a Trio program::

    async with supervm_rt.open_runtime("node.yaml") as runtime:
        await runtime.wait_idle()

Every public name is re-exported here on purpose; ``tests/test_exports.py`` holds the list.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from supervm_rt.errors import SuperVMError
from supervm_rt.model.chain import BlockRef, ChainEvent, ForkMode, Reason, Rejection, Step, Verdict
from supervm_rt.model.events import EventKind, HostEvent, Severity
from supervm_rt.model.manifest import Capability, Manifest, RestartPolicy
from supervm_rt.model.plugin import AssignedResources, Deadlines, Registration
from supervm_rt.runtime import (
    ChainSummary,
    PluginConfig,
    PluginState,
    PluginStatus,
    RestartLimits,
    Runtime,
    RuntimeConfig,
    open_runtime,
)
from supervm_rt.store import Store
from supervm_rt.store.feed import Feed, FeedEvent, Kept, Last, Retention, Subscription, SubscriptionStatistics, open_feed
from supervm_rt.trust.network import NetworkPolicy
from supervm_rt.trust.policy import PolicyLevel

try:
    __version__ = version("supervm-rt")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"


def get_include() -> str:
    """The folder to pass to a C compiler with ``-I``: it holds ``supervm/supervm.h``."""
    package = Path(__file__).parent
    installed = package / "include"
    return str(installed if installed.is_dir() else package.parent.parent / "include")


__all__ = [
    "AssignedResources",
    "BlockRef",
    "Capability",
    "ChainEvent",
    "ChainSummary",
    "Deadlines",
    "EventKind",
    "Feed",
    "FeedEvent",
    "ForkMode",
    "HostEvent",
    "Kept",
    "Last",
    "Manifest",
    "NetworkPolicy",
    "PluginConfig",
    "PluginState",
    "PluginStatus",
    "PolicyLevel",
    "Reason",
    "Registration",
    "Rejection",
    "RestartLimits",
    "RestartPolicy",
    "Retention",
    "Runtime",
    "RuntimeConfig",
    "Severity",
    "Step",
    "Store",
    "Subscription",
    "SubscriptionStatistics",
    "SuperVMError",
    "Verdict",
    "__version__",
    "get_include",
    "open_feed",
    "open_runtime",
]
