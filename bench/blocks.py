"""The blocks that are measured: named mainnet blocks where they are at hand, and a regtest chain of their transactions."""

from __future__ import annotations

import bz2
import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from bench.building import ROOT

DATA = ROOT / ".." / "shared" / "data" / "bitcoin"
SAMPLE = ROOT / "src" / "supervm_rt" / "demo" / "sample-chain"
MAIN_MAGIC = bytes.fromhex("f9beb4d9")
REGTEST_MAGIC = bytes.fromhex("fabfb5da")
REGTEST_BITS = 0x207FFFFF
REGTEST_GENESIS = bytes.fromhex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")[::-1]
SINGLE = {
    "169482": "bitcoinj-block169482.dat",
    "227835": "bitcoinj-block227835.dat",
    "227836": "bitcoinj-block227836.dat",
    "300025": "bcoin-block300025.raw",
    "363703": "bitcoinj-block363703.dat",
    "370661": "bitcoinj-block370661.dat",
}


def mainnet() -> dict[str, bytes]:
    """Large blocks of mainnet by height, raw; empty where the data are absent."""
    if not DATA.is_dir():
        return {}
    blocks = {name: (DATA / file).read_bytes() for name, file in SINGLE.items()}
    blocks["277647"] = bz2.decompress((DATA / "277647.dat.bz2").read_bytes())[8:]
    return blocks


def first_mainnet() -> list[bytes]:
    """Mainnet's blocks 1 to 255, raw; empty where the data are absent."""
    if not DATA.is_dir():
        return []
    return list(unframe(bz2.decompress((DATA / "blocks1-256.bz2").read_bytes()), MAIN_MAGIC))


def unframe(data: bytes, magic: bytes) -> Iterator[bytes]:
    """The blocks of a block file's bytes."""
    at = 0
    while data[at : at + 4] == magic:
        (length,) = struct.unpack_from("<I", data, at + 4)
        yield data[at + 8 : at + 8 + length]
        at += 8 + length


def sample_segwit() -> bytes:
    """The largest block of the sample chain: its transactions have witnesses."""
    blocks: list[bytes] = []
    key = (SAMPLE / "blocks" / "xor.dat").read_bytes() if (SAMPLE / "blocks" / "xor.dat").exists() else bytes(8)
    for path in sorted((SAMPLE / "blocks").glob("blk*.dat")):
        data = path.read_bytes()
        blocks += unframe(bytes(byte ^ key[at % len(key)] for at, byte in enumerate(data)), REGTEST_MAGIC)
    return max(blocks, key=len)


def relinked(blocks: list[bytes], count: int) -> list[bytes]:
    """A chain of regtest: the transactions of these blocks in turn, each time under a header of its own."""
    chain = []
    parent = REGTEST_GENESIS
    limit = 0x7FFFFF << (8 * (0x20 - 3))
    for number in range(count):
        raw = blocks[number % len(blocks)]
        for nonce in range(1 << 20):
            header = struct.pack("<I", 1) + parent + raw[36:68] + struct.pack("<III", 1_400_000_000 + number, REGTEST_BITS, nonce)
            hash_ = hashlib.sha256(hashlib.sha256(header).digest()).digest()
            if int.from_bytes(hash_, "little") <= limit:
                break
        chain.append(header + raw[80:])
        parent = hash_
    return chain


def write_files(folder: Path, blocks: list[bytes], magic: bytes) -> None:
    """A node's folder of block files."""
    folder.mkdir(parents=True)
    file, number = bytearray(), 0
    for raw in blocks:
        if len(file) + len(raw) > 100 << 20:
            (folder / f"blk{number:05}.dat").write_bytes(file)
            file, number = bytearray(), number + 1
        file += magic + struct.pack("<I", len(raw)) + raw
    (folder / f"blk{number:05}.dat").write_bytes(file)
