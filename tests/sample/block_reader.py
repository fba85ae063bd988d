"""A second opinion: reads block files and blocks in plain Python, sharing nothing with the code under test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadTransaction:
    """A transaction: its bytes, its ids, the outpoints it spends (``txid:index``), and its outputs as (amount, script)."""

    raw: bytes
    identity: str
    witness_identity: str
    spends: tuple[str, ...]
    outputs: tuple[tuple[int, bytes], ...]
    has_witness: bool


@dataclass(frozen=True)
class ReadBlock:
    """A block: ids in display order."""

    hash: str
    parent: str
    transactions: tuple[ReadTransaction, ...]


def block_files(folder: Path) -> list[Path]:
    """The block files in the order of their numbers."""
    return sorted(folder.glob("blk*.dat"), key=lambda path: int(path.stem.removeprefix("blk")))


def read_records(data: bytes, magic: bytes) -> Iterator[bytes]:
    """The blocks of one file without its XOR: magic, length, block, until something else comes."""
    position = 0
    while data[position : position + 4] == magic:
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position + 8 : end]
        position = end


def read_folder(folder: Path, magic: bytes) -> Iterator[bytes]:
    """All blocks of a ``blocks`` folder that no node is writing, in the order of their arrival."""
    key_file = folder / "xor.dat"
    key = key_file.read_bytes() if key_file.exists() else bytes(8)
    for path in block_files(folder):
        raw = path.read_bytes()
        pad = int.from_bytes((key * (len(raw) // 8 + 1))[: len(raw)], "little")
        yield from read_records((int.from_bytes(raw, "little") ^ pad).to_bytes(len(raw), "little"), magic)


def block_hash(raw: bytes) -> str:
    """The id of a raw block or header."""
    return double_sha256(raw[:80])[::-1].hex()


def double_sha256(data: bytes) -> bytes:
    """The hash of all things in Bitcoin."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        self.position += size
        if self.position > len(self.data):
            raise ValueError("the bytes end too early")
        return self.data[self.position - size : self.position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def count(self) -> int:
        first = self.number(1)
        return first if first < 0xFD else self.number({0xFD: 2, 0xFE: 4, 0xFF: 8}[first])

    def peek(self) -> int:
        self.take(1)
        self.position -= 1
        return self.data[self.position]

    def end(self) -> None:
        if self.position != len(self.data):
            raise ValueError("there are bytes behind the end")

    def string(self) -> bytes:
        return self.take(self.count())


def parse_block(raw: bytes) -> ReadBlock:
    """Takes a block apart. Raises ValueError where it cannot."""
    data = _Bytes(raw)
    header = data.take(80)
    transactions = tuple(_parse_transaction(data) for _ in range(data.count()))
    data.end()
    return ReadBlock(block_hash(header), header[4:36][::-1].hex(), transactions)


def parse_transaction(raw: bytes) -> ReadTransaction:
    """Takes a transaction apart. Raises ValueError where it cannot."""
    data = _Bytes(raw)
    transaction = _parse_transaction(data)
    data.end()
    return transaction


def _parse_transaction(data: _Bytes) -> ReadTransaction:
    begin = data.position
    version = data.take(4)
    has_witness = data.peek() == 0
    if has_witness:
        data.take(2)
    start = data.position
    spends = []
    for _ in range(data.count()):
        previous = data.take(32)[::-1].hex()
        spends.append(f"{previous}:{data.number(4)}")
        data.string()
        data.take(4)
    outputs = tuple((data.number(8), data.string()) for _ in range(data.count()))
    body = data.data[start : data.position]
    if has_witness:
        for _ in spends:
            for _ in range(data.count()):
                data.string()
    identity = double_sha256(version + body + data.take(4))[::-1].hex()
    raw = data.data[begin : data.position]
    return ReadTransaction(raw, identity, double_sha256(raw)[::-1].hex(), tuple(spends), outputs, has_witness)
