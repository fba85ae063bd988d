"""What a plugin may reach over the network, as values (manifest keys network.allow and network.listen)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressRange = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of a list: a host name, a pattern of names, an address or a range of addresses; and ports."""

    text: str
    """As it was written."""
    first_port: int
    last_port: int
    name: str = ""
    """A host name in lower case; ``*.example.org``: every name below; ``*``: every name; empty: the entry is about addresses."""
    addresses: AddressRange | None = None
    """None: the entry is about names."""

    def __str__(self) -> str:
        """As it was written."""
        return self.text


@dataclass(frozen=True, slots=True)
class Network:
    """Both lists of a plugin; empty ones allow nothing."""

    allow: tuple[Endpoint, ...] = ()
    """Where it may have connections to."""
    listen: tuple[Endpoint, ...] = ()
    """Where others may connect to it: addresses of this machine."""

    def __bool__(self) -> bool:
        """Whether it names anything."""
        return bool(self.allow or self.listen)
