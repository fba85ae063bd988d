"""Ten blocks of the chain dev, over gRPC: the smallest remote plugin in Python, with asyncio.

python ten_blocks.py unix:/run/node.sock
"""

import asyncio
import hashlib
import sys

from supervm_rt import sdk


def block_id(height: int) -> bytes:
    """Any bytes that differ from block to block."""
    return hashlib.sha256(b"block %d" % height).digest()


async def main() -> None:
    """Registers, sends what the node does not have yet, and waits to be stopped."""
    async with sdk.connect_asyncio(*sys.argv[1:], name="org.example.ten-blocks", version="1.0.0", chain="dev") as node:
        for height in range(int(node.position or 0) + 1, 11):
            await node.publish(
                b"block %d" % height,
                height=height,
                hash=block_id(height),
                parent=block_id(height - 1),
                position=str(height).encode(),
            )
        node.log(2, "all ten blocks are sent")
        node.end_of_input()
        await node.wait_stopped()


if __name__ == "__main__":
    asyncio.run(main())
