"""Hands the block files of a Bitcoin node to a SuperVM node over gRPC: a remote plugin in Python, with Trio.

python blockfiles.py unix:/run/node.sock

The node's configuration says where the files are: settings: {blocks_dir: /home/bitcoin/.bitcoin/blocks, network: main}.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from supervm_rt import sdk

MAGIC = {"main": "f9beb4d9", "testnet": "0b110907", "signet": "0a03cf40", "regtest": "fabfb5da"}


def blocks(folder: Path, magic: bytes, number: int, offset: int) -> Iterator[tuple[bytes, bytes]]:
    """Every block from a place on, with the place behind it."""
    key = (folder / "xor.dat").read_bytes() if (folder / "xor.dat").exists() else bytes(8)
    while (path := folder / f"blk{number:05}.dat").exists():
        data = bytearray(path.read_bytes())
        for index in range(len(key)):
            data[index :: len(key)] = data[index :: len(key)].translate(bytes(byte ^ key[index] for byte in range(256)))
        while (begin := data.find(magic, offset)) >= 0:
            offset = begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "little")
            yield bytes(data[begin + 8 : offset]), f"{number}:{offset}".encode()
        number, offset = number + 1, 0


async def produce(node: sdk.Plugin) -> None:
    """One life: goes on where the node has come to."""
    settings = node.configuration
    number, offset = map(int, (node.position or b"0:0").split(b":"))
    for block, position in blocks(Path(settings["blocks_dir"]), bytes.fromhex(MAGIC[settings["network"]]), number, offset):
        await node.publish(block, position=position)
    node.end_of_input()
    await node.wait_stopped()


if __name__ == "__main__":
    trio.run(lambda: sdk.serve(produce, *sys.argv[1:], name="org.example.blockfiles", version="1.0.0", chain="bitcoin"))
