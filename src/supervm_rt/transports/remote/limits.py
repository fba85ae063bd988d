"""What peers of the gRPC server may use at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from supervm_rt.errors import ConfigurationError

MOST_STREAMS = 4_096
"""Calls at once on one connection that may be allowed. Each is a task, and what HTTP/2 tells the peer has 32 bits."""


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """Bounds for all peers. Sizes are bytes, times are seconds."""

    message: int = 64 << 20
    """One message of a BlockExchange. A length above it is refused before the message is there."""
    request: int = 4 << 20
    """One message of any other call: a manifest, a transaction."""
    connections: int = 4_096
    connections_per_peer: int = 2_048
    """Of one user on a Unix socket, or of one certificate over TCP."""
    streams: int = 64
    """Calls under way on one connection; at most MOST_STREAMS."""
    registrations_per_peer: int = 2_048
    register: float = 20.0
    """For a TLS handshake, and for a connection to make its first call."""
    idle: float = 900.0
    """After which a connection without a call is closed."""
    stalled: float = 300.0
    """After which a peer that takes nothing of what it asked for is given up."""
    message_time: float = 120.0
    """From the first byte of a message to its last."""
    keepalive: float = 30.0
    """Between two pings."""
    keepalive_timeout: float = 20.0
    """For a ping to be answered: a peer that does not is gone."""
    unregistered_bytes: int = 64 << 20
    """Held at any time for all connections that have not registered a plugin."""
    control_rate: float = 500.0
    """HTTP/2 frames that carry no data a second and connection; twenty times as many at once. A reset counts as ten, two updates
    of windows for each frame of data that the peer was sent as none."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a bound that is none."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not 0 < value < float("inf"):
                raise ConfigurationError(f"the remote limit {each.name} is {value!r}", remedy="give a number above 0")
        if self.streams > MOST_STREAMS:
            raise ConfigurationError(
                f"the remote limit streams is {self.streams}; at most {MOST_STREAMS} calls go over one connection",
                remedy="set it lower; a peer that needs more opens a further connection",
            )
        if self.message >= 1 << 32 or self.request >= 1 << 32:
            raise ConfigurationError("a gRPC message has less than 4 GiB", remedy="set smaller remote limits")
