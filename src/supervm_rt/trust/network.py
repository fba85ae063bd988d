"""What the entries of network.allow and network.listen mean, and whether they cover a name or an address."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervm_rt.errors import ConfigurationError
from supervm_rt.model.network import Address, AddressRange, Endpoint, Network

MAX_NAME = 253
LAST_PORT = 65_535
LOCALHOST = "localhost"
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LOOKS_LIKE_A_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

SPECIAL: tuple[AddressRange, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Unspecified, loopback, and IPv4 addresses in IPv6 ones: compatible, mapped, translated, 6to4, Teredo.
            "::/96",
            "::ffff:0:0/96",
            "::ffff:0:0:0/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "3fff::/20",
            "5f00::/16",
            "fc00::/7",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)
"""Loopback, private, link-local, multicast, unspecified and other addresses that are not simply somebody's on the Internet."""


def is_special(address: Address) -> bool:
    """Whether only an entry for this very address, or for a range of such addresses, covers it."""
    return any(address in each for each in SPECIAL) or address.is_multicast or not address.is_global


def _is_special_range(addresses: AddressRange) -> bool:
    if addresses.num_addresses == 1:
        return is_special(addresses.network_address)
    if isinstance(addresses, ipaddress.IPv4Network):
        return any(isinstance(each, ipaddress.IPv4Network) and addresses.subnet_of(each) for each in SPECIAL)
    return any(isinstance(each, ipaddress.IPv6Network) and addresses.subnet_of(each) for each in SPECIAL)


# ---- reading ---------------------------------------------------------------------------------------------------------------


def parse_name(text: str) -> str | None:
    """A host name in lower case without its last dot; None where it is none, as what only old resolvers take for an address."""
    name = text.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or _LOOKS_LIKE_A_NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    return name


def parse_address(text: str) -> Address | None:
    """An address without a zone; None where it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def parse_allowed(text: str) -> Endpoint:
    """An entry of network.allow. Raises ValueError."""
    host, first, last = _split(text, "node.example.org:8333, *.example.org:443, 192.0.2.0/24:8333-8340 or [2001:db8::1]:*")
    if first == 0:
        raise ValueError(f"{text!r}: nobody can be reached at port 0")
    addresses = _addresses(text, host)
    if addresses is not None:
        return Endpoint(text, first, last, addresses=addresses)
    below = host.removeprefix("*.")
    name = "*" if host == "*" else parse_name(below)
    if name is None:
        raise ValueError(f"{text!r}: {host!r} is neither a host name (ASCII letters, digits, dashes) nor an address")
    return Endpoint(text, first, last, name=f"*.{name}" if below != host else name)


def parse_listened(text: str) -> Endpoint:
    """An entry of network.listen. Raises ValueError."""
    host, first, last = _split(text, "127.0.0.1:8333, 0.0.0.0:8333 or [::1]:*")
    addresses = _addresses(text, host)
    if addresses is None:
        raise ValueError(f"{text!r}: {host!r} is not an address; name the address of this machine to listen on")
    return Endpoint(text, first, last, addresses=addresses)


def parse_network(document: Mapping[str, Any]) -> Network:
    """``{allow: [...], listen: [...]}``. Raises ValueError that names the place."""
    found: dict[str, tuple[Endpoint, ...]] = {}
    for key, parse in (("allow", parse_allowed), ("listen", parse_listened)):
        entries = []
        for index, text in enumerate(document.get(key, ())):
            try:
                entries.append(parse(text))
            except ValueError as error:
                raise ValueError(f"network.{key}[{index}]: {error}") from None
        found[key] = tuple(entries)
    return Network(**found)


def _split(text: str, form: str) -> tuple[str, int, int]:
    host, colon, ports = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"{text!r}: brackets are for IPv6 addresses")
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, and a port after it: [2001:db8::1]:8333")
    match = _PORTS.fullmatch(ports)
    if not colon or not host or (match is None and ports != "*"):
        raise ValueError(f"{text!r} is not of the form HOST:PORT; write for example {form}")
    if match is None:
        return host, 1, LAST_PORT
    first, last = int(match[1]), int(match[2] or match[1])
    if not 0 <= first <= last <= LAST_PORT:
        raise ValueError(f"{text!r}: {ports} are no ports; they go from 1 to {LAST_PORT}, the lower one first")
    return host, first, last


def _addresses(text: str, host: str) -> AddressRange | None:
    if not re.fullmatch(r"[0-9a-fA-F:.]+(/[0-9]+)?", host) or (":" not in host and parse_name(host) is not None):
        return None
    try:
        return ipaddress.ip_network(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


# ---- asking ----------------------------------------------------------------------------------------------------------------


def _has_port(entry: Endpoint, port: int) -> bool:
    # A port that the kernel chooses is any port.
    return entry.first_port <= port <= entry.last_port or (port == 0 and (entry.first_port, entry.last_port) == (1, LAST_PORT))


def covers_name(entries: Iterable[Endpoint], name: str, port: int) -> bool:
    """Whether the entries name this host name (of parse_name): where not, it is not even to be resolved."""
    return any(
        entry.name in {name, "*"} or (entry.name.startswith("*.") and name.endswith(entry.name[1:]))
        for entry in entries
        if entry.name and _has_port(entry, port)
    )


def covers_address(entries: Iterable[Endpoint], address: Address, port: int) -> bool:
    """Whether the entries list this address. A special one is listed only by an entry that is about special addresses alone."""
    special = is_special(address)
    return any(
        entry.addresses is not None
        and address in entry.addresses
        and _has_port(entry, port)
        and (not special or _is_special_range(entry.addresses))
        for entry in entries
    )


def covers_resolved(entries: Sequence[Endpoint], name: str, address: Address, port: int) -> bool:
    """Whether a connection may go to this address, which the name resolved to.

    The name suffices for an ordinary address. A special one must be listed itself; ``localhost`` lists loopback.
    """
    if covers_address(entries, address, port):
        return True
    if name == LOCALHOST and address.is_loopback:
        return any(entry.name == LOCALHOST and _has_port(entry, port) for entry in entries)
    return not is_special(address) and covers_name(entries, name, port)


def may_cover(entries: Iterable[Endpoint], name: str, port: int) -> bool:
    """Whether anything that a name resolves to could be covered: for the operator's list, which narrows the manifest's."""
    entries = list(entries)
    return covers_name(entries, name, port) or any(entry.addresses is not None and _has_port(entry, port) for entry in entries)


# ---- what a plugin is granted ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What the operator says of one plugin's network. It narrows what the manifest lists, and never widens it."""

    allow: Sequence[str] | None = None
    """Entries as in the manifest's network.allow; None: no narrower than the manifest, where the policy accepts that."""
    listen: Sequence[str] | None = None
    """Likewise, for network.listen."""
    sockets: int = 128
    """Sockets that the plugin may have at once."""
    rate: int = 50
    """Requests of the plugin that are taken in a second; twice as many at once."""
    entries: Network = field(init=False, default=Network(), repr=False)

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        try:
            object.__setattr__(self, "entries", parse_network({"allow": self.allow or (), "listen": self.listen or ()}))
        except ValueError as error:
            raise ConfigurationError(str(error), remedy="see docs/operating.md for the form") from None
        for name, most in (("sockets", 1024), ("rate", 10_000)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigurationError(f"network.{name} is {getattr(self, name)}", remedy=f"give a number from 1 to {most}")


@dataclass(frozen=True, slots=True)
class NetworkGrant:
    """What a plugin may reach: what its manifest lists and the operator does not take away."""

    manifest: Network = Network()  # noqa: RUF009 - frozen
    operator: NetworkPolicy = NetworkPolicy()

    def __bool__(self) -> bool:
        """Whether there is anything at all."""
        return any(
            listed and (narrowed is None or narrowed)
            for listed, narrowed in ((self.manifest.allow, self.operator.allow), (self.manifest.listen, self.operator.listen))
        )

    def why_not_resolved(self, name: str, port: int) -> str:
        """Why a name of parse_name is not even looked up: a look-up alone tells others something. Empty: it is."""
        if not covers_name(self.manifest.allow, name, port):
            return "network.allow of its manifest does not list it"
        if self.operator.allow is not None and not may_cover(self.operator.entries.allow, name, port):
            return "the operator's list does not have it"
        return ""

    def why_not_dialled(self, address: Address, port: int, name: str = "") -> str:
        """Why no connection may go to this address; ``name``: what resolved to it, empty where it was named itself."""
        lists = [(self.manifest.allow, "network.allow of its manifest does not list it")]
        if self.operator.allow is not None:
            lists.append((self.operator.entries.allow, "the operator's list does not have it"))
        for entries, why in lists:
            if not (covers_resolved(entries, name, address, port) if name else covers_address(entries, address, port)):
                if is_special(address):
                    return f"{why}, and it is loopback, private or otherwise special: it must be listed by its address"
                return why
        return ""

    def why_not_listened(self, address: Address, port: int) -> str:
        """Why nothing may listen on this address of the machine."""
        if not covers_address(self.manifest.listen, address, port):
            return "network.listen of its manifest does not list it"
        if self.operator.listen is not None and not covers_address(self.operator.entries.listen, address, port):
            return "the operator's list does not have it"
        return ""

    def as_data(self) -> dict[str, list[str] | None]:
        """For the event about the decision."""
        return {
            "allow": [entry.text for entry in self.manifest.allow],
            "listen": [entry.text for entry in self.manifest.listen],
            "operator_allow": None if self.operator.allow is None else list(self.operator.allow),
            "operator_listen": None if self.operator.listen is None else list(self.operator.listen),
        }
