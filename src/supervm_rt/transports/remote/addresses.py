"""Where the gRPC server listens, as an operator says it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from supervm_rt.errors import ConfigurationError

LONGEST_PATH = 107
"""Bytes in the path of a Unix socket: the kernel's own limit."""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system, closed to all but the users that are named."""

    path: Path
    users: frozenset[int] = frozenset()
    """User ids that may connect besides the node's own and root."""

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a path that cannot be one."""
        if len(bytes(self.path)) > LONGEST_PATH:
            raise ConfigurationError(
                f"{self.path}: a socket's path has at most {LONGEST_PATH} bytes", remedy="name a shorter one"
            )

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port with mutual TLS: nobody without a certificate of the authority gets further than the handshake."""

    host: str
    port: int
    """0: any that is free."""
    certificate: Path
    """The node's, with what leads from it to its authority (PEM)."""
    key: Path
    authority: Path
    """Whose certificates peers must show (PEM)."""
    names: frozenset[str] = frozenset()
    """Names that a peer's certificate must have one of; none: any certificate of the authority will do."""
    minimum_version: str = "1.3"

    def __post_init__(self) -> None:
        """Raises ConfigurationError for what cannot be."""
        if not 0 <= self.port <= 65_535:
            raise ConfigurationError(f"{self.port} is no port", remedy="give one from 0 to 65535")
        if self.minimum_version not in VERSIONS:
            raise ConfigurationError(f"TLS {self.minimum_version} cannot be the least version", remedy="use 1.3 or 1.2")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def context(self) -> ssl.SSLContext:
        """What the server's connections are made with. Raises ConfigurationError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.minimum_version]
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["h2"])
        path = self.certificate
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            path = self.authority
            context.load_verify_locations(self.authority)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise ConfigurationError(
                f"{path}: no usable certificates ({why})", remedy="give the certificate, its key and the authority as PEM files"
            ) from None
        return context


def _no_password() -> str:
    """OpenSSL would ask for it at the terminal."""
    raise ValueError("its key has a password; give one without")


Address = UnixAddress | TcpAddress
