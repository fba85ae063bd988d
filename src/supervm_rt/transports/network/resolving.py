"""From a host name to addresses: on a thread, since a resolver may take as long as it likes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import trio

from supervm_rt.model.network import Address
from supervm_rt.trust.network import parse_address

Resolver = Callable[[str], Sequence[str]]
"""Gives the addresses of a host name, best first, as texts. Called on a thread; raises OSError where there are none."""

MOST_ADDRESSES = 16
MOST_LOOKUPS = 4
"""Of one plugin at a time; one that was given up counts until it returns."""


def system_resolver(name: str) -> Sequence[str]:
    """As this machine resolves names."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(place[0]) for _, _, _, _, place in found]


async def resolve(resolver: Resolver, name: str, limiter: trio.CapacityLimiter) -> list[Address]:
    """The addresses, each once. A cancel leaves the thread behind. Raises what the resolver raises."""
    texts = await trio.to_thread.run_sync(resolver, name, abandon_on_cancel=True, limiter=limiter)
    found = [address for text in texts if (address := parse_address(text)) is not None]
    return list(dict.fromkeys(found))[:MOST_ADDRESSES]
