"""What an operator sets: the node's configuration, from a file or from code."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from supervm_rt.errors import ConfigurationError
from supervm_rt.model.chain import ForkMode
from supervm_rt.model.manifest import RestartPolicy
from supervm_rt.model.plugin import Deadlines
from supervm_rt.store.feed.retention import Kept, Retention
from supervm_rt.transports.network.resolving import Resolver, system_resolver
from supervm_rt.transports.remote.addresses import Address, TcpAddress, UnixAddress
from supervm_rt.transports.remote.limits import RemoteLimits
from supervm_rt.trust.documents import MAX_DOCUMENT_BYTES, DocumentFault, check_shape, read_yaml
from supervm_rt.trust.network import NetworkPolicy
from supervm_rt.trust.policy import Placement, PolicyLevel
from supervm_rt.trust.units import parse_bytes, parse_seconds

DEFAULT_RING_BYTES = 16 << 20
MIN_RING_BYTES = 64 << 10
MAX_RING_BYTES = 1 << 30
DEFAULT_ORPHAN_LIMIT = 16_384
"""A node that downloads blocks in parallel writes them out of order by up to a few thousand positions."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


class ChainDefault:
    """Stands for: what the chain's translator says."""

    def __repr__(self) -> str:
        return "CHAIN_DEFAULT"


CHAIN_DEFAULT: Final = ChainDefault()


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """How restarts are spaced and when they end."""

    first_delay: float = 0.5
    """Seconds before the first restart; doubled for each further one, with jitter."""
    longest_delay: float = 60.0
    failures: int = 5
    """So many failures within ``window`` quarantine the plugin."""
    window: float = 300.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class PluginConfig:
    """One plugin to host."""

    path: Path
    """The folder that holds plugin.yaml."""
    name: str | None = None
    """The plugin's id in this runtime; None: the manifest's id."""
    chain: str | None = None
    """The name under which its chain is mirrored; None: the manifest's chain."""
    mode: ForkMode | None = None
    """None: the chain's default."""
    final_depth: int | ChainDefault | None = CHAIN_DEFAULT
    """None: only what the plugin says is final."""
    orphan_limit: int = DEFAULT_ORPHAN_LIMIT
    restart: RestartPolicy | None = None
    """None: the manifest's."""
    placement: Placement | None = None
    """Where its code runs; None: in a sandbox where its manifest or the policy wants one, else in the host's process."""
    network: NetworkPolicy | None = None
    """What the operator grants of the network that its manifest lists; None: he said nothing."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """The plugin's own configuration, handed over as JSON."""
    settings_folder: Path | None = None
    """Relative paths among the settings (those that the manifest's read_paths name) start here; None: the working directory."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a name or a chain that cannot be one."""
        for what, name in (("name", self.name), ("chain", self.chain)):
            if name is not None and not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{what} is {name!a}",
                    remedy="use up to 200 letters, digits, dots, colons, dashes and underscores, a letter or digit first",
                )


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """All that ``open_runtime`` needs."""

    store: Path
    plugins: tuple[PluginConfig, ...]
    policy: PolicyLevel = PolicyLevel.STRICT
    store_limit: int | None = None
    """Bytes that the store's file may grow to; None: as far as the disk goes."""
    retention: Retention | None = None
    """How long events of final and of undone blocks are kept; None: for ever."""
    ring_bytes: int = DEFAULT_RING_BYTES
    """Capacity of each plugin's ring: a power of two from 64 KiB to 1 GiB."""
    deadlines: Deadlines = field(default_factory=Deadlines)
    restarts: RestartLimits = field(default_factory=RestartLimits)
    storage: Path | None = None
    """Where plugins that may write have their folders, one each; None: beside the store, under its name with ``.plugins``."""
    listen: tuple[Address, ...] = ()
    """Where remote plugins and subscribers reach the node over gRPC."""
    remote: RemoteLimits = field(default_factory=RemoteLimits)
    """What they may use at most."""
    rejection_limit: int = 10_000
    """A plugin whose rejected blocks exceed this within one life is quarantined."""
    resolver: Resolver = system_resolver
    """From a host name that a plugin asks for to addresses, as texts: called on a thread, for names that the plugin may reach."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a ring that cannot be."""
        size = self.ring_bytes
        if not MIN_RING_BYTES <= size <= MAX_RING_BYTES or size & (size - 1):
            raise ConfigurationError(f"ring_bytes is {size}", remedy="give a power of two from 64 KiB to 1 GiB")

    def storage_of(self, plugin: str) -> Path:
        """The folder that a plugin may write, where its manifest grants it some."""
        base = self.storage or self.store.with_name(f"{self.store.name}.plugins")
        return base.absolute() / plugin

    @classmethod
    def load(cls, path: Path) -> RuntimeConfig:
        """Reads a configuration file. Relative paths in it start at its own folder. Raises ConfigurationError."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(f"{path}: cannot be read ({why})", remedy="name a readable YAML file") from None
        try:
            document = check_shape(read_yaml(data), package="supervm_rt.runtime", schema="config.schema.json")
            return cls._from_document(document, path.resolve().parent)
        except DocumentFault as fault:
            raise ConfigurationError(f"{path}: {fault}", remedy="see docs/operating.md for every key") from None

    @classmethod
    def _from_document(cls, document: Mapping[str, Any], folder: Path) -> RuntimeConfig:
        deadlines = {
            key: _amount(f"deadlines.{key}", parse_seconds, value) for key, value in document.get("deadlines", {}).items()
        }
        return cls(
            store=folder / _path("store", document["store"]),
            plugins=tuple(_plugin(item, index, folder) for index, item in enumerate(document.get("plugins", ()))),
            listen=tuple(_address(item, index, folder) for index, item in enumerate(document.get("listen", ()))),
            remote=_limits(document.get("remote", {})),
            storage=folder / _path("storage", document["storage"]) if "storage" in document else None,
            policy=PolicyLevel(document.get("policy", "strict")),
            store_limit=_amount("store_limit", parse_bytes, document["store_limit"]) if "store_limit" in document else None,
            retention=_retention(document["retention"]) if "retention" in document else None,
            ring_bytes=_amount("ring", _ring_bytes, document["ring"]) if "ring" in document else DEFAULT_RING_BYTES,
            deadlines=Deadlines(**deadlines),
        )


def _plugin(item: Mapping[str, Any], index: int, folder: Path) -> PluginConfig:
    settings = item.get("settings", {})
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DocumentFault(f"plugins[{index}].settings: {error}; quote dates and the like") from None
    return PluginConfig(
        path=folder / _path(f"plugins[{index}].path", item["path"]),
        name=item.get("name"),
        chain=item.get("chain"),
        mode=ForkMode(item["mode"]) if "mode" in item else None,
        final_depth=item.get("final_depth", CHAIN_DEFAULT),
        orphan_limit=item.get("orphans", DEFAULT_ORPHAN_LIMIT),
        restart=RestartPolicy(item["restart"]) if "restart" in item else None,
        placement=Placement(item["placement"]) if "placement" in item else None,
        network=_network(item["network"], index) if "network" in item else None,
        settings=settings,
        settings_folder=folder,
    )


def _network(item: Mapping[str, Any], index: int) -> NetworkPolicy:
    try:
        return NetworkPolicy(**item)
    except ConfigurationError as error:
        raise DocumentFault(f"plugins[{index}].{error.message}") from None


def _address(item: Mapping[str, Any], index: int, folder: Path) -> Address:
    place = f"listen[{index}]"
    if "unix" in item:
        return UnixAddress(folder / _path(f"{place}.unix", item["unix"]), frozenset(item.get("users", ())))
    host, _, port = item["tcp"].rpartition(":")
    if not port.isdecimal():
        raise DocumentFault(f"{place}.tcp: {item['tcp']!a} is not HOST:PORT")
    return TcpAddress(
        host.removeprefix("[").removesuffix("]"),
        int(port),
        certificate=folder / _path(f"{place}.certificate", item["certificate"]),
        key=folder / _path(f"{place}.key", item["key"]),
        authority=folder / _path(f"{place}.authority", item["authority"]),
        names=frozenset(item.get("names", ())),
        minimum_version=item.get("minimum_version", "1.3"),
    )


def _limits(item: Mapping[str, Any]) -> RemoteLimits:
    sizes = {"message", "request", "unregistered_bytes"}
    seconds = {"register", "idle", "stalled", "message_time", "keepalive", "keepalive_timeout"}
    values = {}
    for key, value in item.items():
        parse = parse_bytes if key in sizes else parse_seconds if key in seconds else (lambda number: number)
        values[key] = _amount(f"remote.{key}", parse, value)
    try:
        return RemoteLimits(**values)
    except ConfigurationError as error:
        raise DocumentFault(error.message) from None


def _retention(item: Mapping[str, Any]) -> Retention:
    given = item["final"]
    age = _amount("retention.final.age", parse_age, given["age"])
    final = Kept(age, given["events"]) if "events" in given else Kept(age)
    if "undone" not in item:
        return Retention(final)
    given = item["undone"]
    age = _amount("retention.undone.age", parse_age, given["age"]) if "age" in given else final.age
    try:
        return Retention(final, Kept(age, given.get("events", final.events)))
    except ConfigurationError as error:
        raise DocumentFault(f"retention: {error.message}") from None


def parse_age(value: object) -> float:
    """Seconds from ``30d``, or infinity from ``forever``. Raises ValueError."""
    return math.inf if value == "forever" else parse_seconds(value)


def _path(place: str, text: str) -> str:
    try:
        if "\0" not in os.fsencode(text).decode("latin-1"):
            return text
    except UnicodeEncodeError:
        pass
    raise DocumentFault(f"{place}: {text!a} is not a path")


def _ring_bytes(value: object) -> int:
    size = parse_bytes(value)
    if not MIN_RING_BYTES <= size <= MAX_RING_BYTES:
        raise ValueError(f"{value!r} is not between 64KiB and 1GiB")
    return 1 << (size - 1).bit_length()


def _amount(place: str, parse: Any, value: object) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise DocumentFault(f"{place}: {error}") from None
