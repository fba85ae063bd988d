"""For authors of remote plugins in Python, with Trio or with asyncio.

With Trio::

    from supervm_rt import sdk

    async def main():
        async with sdk.connect("unix:/run/node.sock", name="org.example.mine", version="1.0.0", chain="dev") as host:
            await host.publish(b"...", height=1, hash=..., parent=..., position=b"1")
            host.end_of_input()
            await host.wait_stopped()

    trio.run(main)

With asyncio the same, with ``sdk.connect_asyncio``. ``sdk.serve`` and ``sdk.serve_asyncio`` connect again where the connection is
lost, and begin anew at the position that the host has committed.
"""

from supervm_rt.sdk.connection import Connection, Description, Disconnected, Refused, Stopped
from supervm_rt.sdk.flavours import Plugin, connect, connect_asyncio, serve, serve_asyncio
from supervm_rt.sdk.messages import Submitted

__all__ = [
    "Connection",
    "Description",
    "Disconnected",
    "Plugin",
    "Refused",
    "Stopped",
    "Submitted",
    "connect",
    "connect_asyncio",
    "serve",
    "serve_asyncio",
]
