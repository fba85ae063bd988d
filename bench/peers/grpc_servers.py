"""The same service by supervm-rt and by grpcio, each in a process of its own.

``python -m bench.peers.grpc_servers KIND SOCKET SIZE BATCH``. KIND: ``ours``, ``aio`` (grpcio's asyncio server), ``sync`` (its
threaded one) or ``made`` (``aio`` with messages that were made beforehand). StreamBlocks sends blocks of SIZE bytes, BATCH to a
message, as many as the request's ``from_height`` says: all but ``made`` have them as the events of a feed, and make messages of
them. BlockExchange takes what comes, and decodes every block.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from supervm_rt.model.chain import BlockRef, Step

SERVICE = "supervm.plugin.PluginHost"


class Event:
    """An event of a feed."""

    chain, step, parent, time, cursor, ir = "dev", Step.NEW, bytes(32), 0, "c" * 100, None

    def __init__(self, number: int, raw: bytes) -> None:
        self.block = BlockRef(number.to_bytes(32, "big"), number)
        self.raw = raw


def page(size: int) -> list[Event]:
    """What is told again and again."""
    raw = bytes(size)
    return [Event(number, raw) for number in range(1, 257)]


# ---- ours ------------------------------------------------------------------------------------------------------------------


async def ours(path: Path, size: int, batch: int) -> None:
    """The node's own server, with a plugin's transport behind it; what it takes goes no further."""
    import trio

    from supervm_rt.model.manifest import Capability, Manifest, RunMode
    from supervm_rt.model.plugin import Deadlines
    from supervm_rt.transports.remote.addresses import UnixAddress
    from supervm_rt.transports.remote.limits import RemoteLimits
    from supervm_rt.transports.remote.server import RemoteServer

    manifest = Manifest("bench", "bench", "1.0.0", "dev", frozenset({Capability.BLOCK_STREAM}), None, RunMode.GRPC)

    events = page(size)

    class Subscription:
        def __init__(self, count: int) -> None:
            self.left = count
            self.page = events

        async def batch(self, *, wait: bool = True) -> Sequence[Any]:
            taken = self.page[: self.left]
            self.left -= len(taken)
            await trio.lowlevel.checkpoint()
            return taken

    class Host:
        ending = False

        async def opened(self, seconds: float) -> bool:
            return True

        def read(self, introduction: Any) -> Any:
            return introduction

        async def admit(self, said: Any) -> str:
            return "bench"

        def withdraw(self, introduction: Any, taken: Any) -> None: ...

        def refusal(self, plugin: str) -> str:
            return ""

        def subscribe(self, chains: Any, **more: Any) -> Subscription:
            return Subscription(int(more["start"]))

        def ir_json(self, event: Any) -> str:
            return ""

        async def network(self, chain: str) -> str:
            return ""

        async def chains(self, cursor: str | None) -> Sequence[str]:
            return ("dev",)

        def health(self) -> tuple[bool, str]:
            return True, ""

        def report(self, *anything: Any, **more: Any) -> None: ...

    async def lives(server: RemoteServer) -> None:
        while True:
            transport = server.transport(
                "bench",
                manifest=manifest,
                generation=1,
                window=16 << 20,
                deadlines=Deadlines(),
                code=None,
                folder=path,
                read_paths={},
                storage=path,
            )
            await transport.load()
            transport.grant(capabilities=manifest.capabilities, configuration=b"{}", position=None)
            await transport.init()
            await transport.start()
            while (await transport.receive()).shutdown is None:
                pass
            await transport.stop()
            await transport.unload()

    async with trio.open_nursery() as nursery:
        limits = RemoteLimits(message=256 << 20)
        server = await nursery.start(RemoteServer((UnixAddress(path),), limits, Host()).run)
        nursery.start_soon(lives, server)


# ---- grpcio ----------------------------------------------------------------------------------------------------------------


def fill(message: Any, event: Event) -> None:
    """An event in the classes of Google's protobuf: field by field, which is faster there than by keywords."""
    block = event.block
    message.chain = event.chain
    message.height = block.height
    message.block_bytes = event.raw
    message.timestamp.seconds = event.time
    message.hash = block.hash
    message.parent = event.parent
    message.cursor = event.cursor


def message_of(proto: Any, events: Sequence[Event]) -> Any:
    """One message of one event or more."""
    message = proto.BlockMessage()
    if len(events) == 1:
        fill(message, events[0])
        return message
    add = message.batch.blocks.add
    for event in events:
        fill(add(), event)
    return message


def handlers(proto: Any, size: int, batch: int, *, aio: bool, made: bool) -> Any:
    """The service of both servers of grpcio."""
    import grpc

    events = page(size)
    most = max(batch, 1)
    beforehand = [message_of(proto, events[at : at + most]) for at in range(0, len(events), most)] if made else []

    def told() -> Iterator[Any]:
        if made:
            yield from beforehand
            return
        for at in range(0, len(events), most):
            yield message_of(proto, events[at : at + most])

    def messages(count: int) -> Iterator[Any]:
        sent = 0
        while sent < count:
            for each in told():
                if sent >= count:
                    return
                yield each
                sent += most

    def register(request: Any, _context: Any) -> Any:
        return proto.RegisterResponse(accepted=True)

    def stream(request: Any, _context: Any) -> Iterator[Any]:
        return messages(request.from_height)

    def exchange(requests: Iterator[Any], _context: Any) -> Iterator[Any]:
        for _ in requests:
            pass
        yield from ()

    async def register_aio(request: Any, _context: Any) -> Any:
        return proto.RegisterResponse(accepted=True)

    async def stream_aio(request: Any, _context: Any) -> AsyncIterator[Any]:
        for each in messages(request.from_height):
            yield each

    async def exchange_aio(requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            pass
        for each in messages(0):
            yield each

    def of(make: Any, sync: Any, other: Any, request: Any, response: Any) -> Any:
        return make(
            other if aio else sync, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Register": of(
                grpc.unary_unary_rpc_method_handler, register, register_aio, proto.RegisterRequest, proto.RegisterResponse
            ),
            "StreamBlocks": of(
                grpc.unary_stream_rpc_method_handler, stream, stream_aio, proto.StreamBlocksRequest, proto.BlockMessage
            ),
            "BlockExchange": of(
                grpc.stream_stream_rpc_method_handler, exchange, exchange_aio, proto.BlockMessage, proto.BlockMessage
            ),
        },
    )


OPTIONS = (("grpc.max_receive_message_length", 256 << 20),)


async def serve_aio(proto: Any, path: Path, size: int, batch: int, *, made: bool) -> None:
    """grpcio's asyncio server."""
    import grpc

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(proto, size, batch, aio=True, made=made),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


def serve_sync(proto: Any, path: Path, size: int, batch: int) -> None:
    """grpcio's threaded server."""
    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((handlers(proto, size, batch, aio=False, made=False),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    server.wait_for_termination()


def main() -> None:
    """Serves until it is killed."""
    kind, path, size, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if kind == "ours":
        import trio

        trio.run(ours, path, size, batch)
        return
    import plugin_host_pb2 as proto  # made by bench.remote

    if kind in {"aio", "made"}:
        asyncio.run(serve_aio(proto, path, size, batch, made=kind == "made"))
    else:
        serve_sync(proto, path, size, batch)


if __name__ == "__main__":
    main()
