"""A client made by Google's tools from nothing but the published v0 draft. Run as a program of its own.

v0_client.py CLASSES ADDRESS BLOCKS: CLASSES is where v0_pb2 and v0_pb2_grpc are; BLOCKS a file of blocks, each behind its length
in four bytes. It registers, sends the blocks, reads all of them again, and prints what it saw as one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

SECONDS = 60


def blocks(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def main(classes: str, address: str, path: str) -> None:
    sys.path.insert(0, classes)
    import v0_pb2 as v0
    import v0_pb2_grpc
    from google.protobuf.timestamp_pb2 import Timestamp

    sent = list(blocks(Path(path)))
    seen: dict[str, Any] = {}
    with grpc.insecure_channel(address) as channel:
        host = v0_pb2_grpc.PluginHostStub(channel)
        answer = host.Register(
            v0.RegisterRequest(
                name="org.example.blockfiles", version="1.0.0", chain="bitcoin", capabilities=["block_stream"], manifest_json=""
            ),
            timeout=SECONDS,
        )
        seen["registered"] = [answer.accepted, answer.plugin_id, answer.message]
        messages = (v0.BlockMessage(chain="bitcoin", block_bytes=block) for block in sent)
        seen["heard"] = [str(message) for message in host.BlockExchange(messages, timeout=SECONDS)]
        health = host.Health(v0.HealthRequest(), timeout=SECONDS)
        seen["health"] = [health.ok, health.status]
        told = []
        stream = host.StreamBlocks(Timestamp(), timeout=SECONDS)
        for message in stream:
            told.append(message)
            if message.block_bytes == sent[-1]:
                stream.cancel()
                break
        seen["heights"] = [message.height for message in told]
        seen["chains"] = sorted({message.chain for message in told})
        seen["known"] = all(message.block_bytes in sent for message in told)
        later = host.StreamBlocks(Timestamp(seconds=told[-1].timestamp.seconds), timeout=SECONDS)
        seen["later"] = next(iter(later)).timestamp.seconds >= told[-1].timestamp.seconds
        later.cancel()
        submitted = host.SubmitTx(v0.SubmitTxRequest(chain="bitcoin", tx=b"\x01"), timeout=SECONDS)
        seen["submitted"] = [submitted.accepted, submitted.error]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
