"""The same connection for Trio and for asyncio, once or again and again."""

from __future__ import annotations

import asyncio
import random
import ssl as tls
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio

from supervm_rt.sdk.connection import Connection, Description, Disconnected, Stopped, open_connection
from supervm_rt.sdk.messages import Submitted

T = TypeVar("T")
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between two tries to reach a host; doubled for each further one, with jitter."""


async def _from_trio(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Runs a function of asyncio's. The library is imported where it is used: it takes over how asyncio makes its loops."""
    import trio_asyncio

    await trio_asyncio.aio_as_trio(function)(*arguments)


class Plugin:
    """A registration, for Trio. All that does not wait is as it is for asyncio: see ``Connection``."""

    def __init__(self, connection: Connection) -> None:
        """For ``connect``."""
        self._connection = connection
        for name in ("offer", "reorg", "finalized", "end_of_input", "log", "metric", "request_shutdown"):
            setattr(self, name, getattr(connection, name))

    def __getattr__(self, name: str) -> Any:
        """What the host said: ``plugin``, ``generation``, ``configuration``, ``position``, ``durable``, ``capabilities``."""
        return getattr(self._connection, name)

    async def publish(self, raw: bytes | memoryview, **more: Any) -> None:
        """As ``Connection.publish``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._connection.offer(raw, **more):
            await _from_trio(self._connection.wait_room)
        if self._connection.crowded:
            await trio.lowlevel.cancel_shielded_checkpoint()  # let it be sent

    async def submit_tx(self, tx: bytes, **more: Any) -> Submitted:
        """As ``Connection.submit_tx``."""
        answers: list[Submitted] = []

        async def ask() -> None:
            answers.append(await self._connection.submit_tx(tx, **more))

        await _from_trio(ask)
        return answers[0]

    async def wait_durable(self, position: bytes) -> None:
        """As ``Connection.wait_durable``."""
        await _from_trio(self._connection.wait_durable, position)

    async def wait_stopped(self) -> None:
        """As ``Connection.wait_stopped``."""
        await _from_trio(self._connection.wait_stopped)


@asynccontextmanager
async def connect(
    address: str | None = None,
    *,
    name: str,
    version: str,
    chain: str,
    capabilities: Sequence[str] = ("block_stream",),
    manifest: str = "",
    ssl: tls.SSLContext | None = None,
) -> AsyncGenerator[Plugin, None]:
    """Registers a plugin, from Trio; see ``Description`` for the fields and ``open_connection`` for the rest.

    Raises Refused, Disconnected, ConfigurationError.
    """
    import trio_asyncio

    description = Description(name, version, chain, tuple(capabilities), manifest)
    failed: BaseException | None = None
    async with trio_asyncio.open_loop():
        try:
            async with trio_asyncio.aio_as_trio(open_connection(address, description, ssl=ssl)) as connection:
                yield Plugin(connection)
        except Exception as error:  # raised again outside of the loop, so that it comes out bare
            failed = error
    if failed is not None:
        raise failed


def connect_asyncio(
    address: str | None = None,
    *,
    name: str,
    version: str,
    chain: str,
    capabilities: Sequence[str] = ("block_stream",),
    manifest: str = "",
    ssl: tls.SSLContext | None = None,
) -> AbstractAsyncContextManager[Connection]:
    """The same, from asyncio."""
    return open_connection(address, Description(name, version, chain, tuple(capabilities), manifest), ssl=ssl)


async def serve(produce: Callable[[Plugin], Awaitable[None]], address: str | None = None, **description: Any) -> None:
    """Runs ``produce`` with a registration, from Trio, and again with a new one where the connection is lost.

    Returns when ``produce`` does, or when the host tells the plugin to stop. Raises Refused, ConfigurationError.
    """
    await _serve(produce, partial(connect, address, **description), trio.sleep)


async def serve_asyncio(produce: Callable[[Connection], Awaitable[None]], address: str | None = None, **description: Any) -> None:
    """The same, from asyncio."""
    await _serve(produce, partial(connect_asyncio, address, **description), asyncio.sleep)


async def _serve(
    produce: Callable[[T], Awaitable[None]],
    connecting: Callable[[], AbstractAsyncContextManager[T]],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    delay = FIRST_DELAY
    while True:
        try:
            async with connecting() as plugin:
                delay = FIRST_DELAY
                await produce(plugin)
                return
        except Stopped:
            return
        except Disconnected:
            await sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, LONGEST_DELAY)
