"""What a plugin says of itself in its plugin.yaml (clause M1), as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from supervm_rt.model.network import Network


class Capability(enum.StrEnum):
    """What a plugin may ask to do."""

    BLOCK_STREAM = "block_stream"
    SUBMIT_TX = "submit_tx"
    RPC_PROXY = "rpc_proxy"
    ARCHIVE_INDEXER = "archive_indexer"


class RunMode(enum.StrEnum):
    """How a plugin joins the host."""

    NATIVE = "native"
    GRPC = "grpc"


class RestartPolicy(enum.StrEnum):
    """When a plugin that ended is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a plugin needs at most. None: it did not say."""

    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""
    storage: int | None = None
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Security:
    """How a plugin is confined."""

    sandbox: bool = True
    seccomp_profile: str = "baseline"
    read_paths: tuple[str, ...] = ()
    """Keys of the plugin's configuration whose values are paths that it may read."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed and validated plugin.yaml."""

    id: str
    name: str
    version: str
    chain: str
    capabilities: frozenset[Capability]
    binary: str | None
    """As written: relative to the manifest's folder. None only for an external gRPC plugin."""
    run_mode: RunMode = RunMode.NATIVE
    resources: Resources = Resources()
    security: Security = Security()
    network: Network = Network()  # noqa: RUF009 - frozen
    """What it may reach, and where it may be reached."""
    signature: str | None = None
    heartbeat: float | None = None
    """Seconds between two signs of life; None: only a plugin that asks for the heartbeat is held to one."""
    restart: RestartPolicy = RestartPolicy.ON_FAILURE
    notes: str = ""
