"""Blocks made for the tests: serialised, committed and mined here, by code of its own."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

REGTEST_BITS = 0x207FFFFF
REGTEST_LIMIT = ((1 << 255) - 1).to_bytes(32, "little")
GENESIS_HASH = bytes.fromhex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206")
RESERVED = bytes(32)


def sha256d(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def compact(value: int) -> bytes:
    if value < 0xFD:
        return bytes([value])
    if value <= 0xFFFF:
        return b"\xfd" + struct.pack("<H", value)
    return b"\xfe" + struct.pack("<I", value)


def text(data: bytes) -> bytes:
    return compact(len(data)) + data


@dataclass(frozen=True)
class Spend:
    previous: bytes
    index: int
    script: bytes = b""
    sequence: int = 0xFFFFFFFF
    witness: tuple[bytes, ...] = ()

    def raw(self) -> bytes:
        return self.previous + struct.pack("<I", self.index) + text(self.script) + struct.pack("<I", self.sequence)


@dataclass(frozen=True)
class Pay:
    amount: int
    script: bytes = b"\x51"

    def raw(self) -> bytes:
        return struct.pack("<Q", self.amount) + text(self.script)


@dataclass(frozen=True)
class Transaction:
    spends: tuple[Spend, ...]
    pays: tuple[Pay, ...] = (Pay(1000),)
    version: int = 2
    lock_time: int = 0

    def body(self) -> bytes:
        spends = compact(len(self.spends)) + b"".join(spend.raw() for spend in self.spends)
        return spends + compact(len(self.pays)) + b"".join(pay.raw() for pay in self.pays)

    def stripped(self) -> bytes:
        return struct.pack("<I", self.version) + self.body() + struct.pack("<I", self.lock_time)

    @property
    def has_witness(self) -> bool:
        return any(spend.witness for spend in self.spends)

    def raw(self) -> bytes:
        if not self.has_witness:
            return self.stripped()
        stacks = b"".join(compact(len(spend.witness)) + b"".join(map(text, spend.witness)) for spend in self.spends)
        return struct.pack("<I", self.version) + b"\0\1" + self.body() + stacks + struct.pack("<I", self.lock_time)

    @property
    def txid(self) -> bytes:
        return sha256d(self.stripped())

    @property
    def wtxid(self) -> bytes:
        return sha256d(self.raw())


def merkle(leaves: Sequence[bytes]) -> bytes:
    level = list(leaves)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[place] + level[place + 1]) for place in range(0, len(level), 2)]
    return level[0]


def commitment(transactions: Sequence[Transaction], reserved: bytes = RESERVED) -> bytes:
    """The script of the output that commits to the witness data of a block's transactions."""
    root = merkle([bytes(32), *(transaction.wtxid for transaction in transactions[1:])])
    return bytes.fromhex("6a24aa21a9ed") + sha256d(root + reserved)


def coinbase(
    script: bytes = b"\x02\x2c\x01", pays: tuple[Pay, ...] = (Pay(50 * 10**8),), witness: tuple[bytes, ...] = ()
) -> Transaction:
    return Transaction((Spend(bytes(32), 0xFFFFFFFF, script, witness=witness),), pays)


def spend(number: int, *, witness: tuple[bytes, ...] = (), inputs: int = 1, outputs: int = 1) -> Transaction:
    spends = tuple(
        Spend(sha256d(struct.pack("<II", number, place)), place, bytes([1, 0x51]), 5, witness) for place in range(inputs)
    )
    return Transaction(spends, tuple(Pay(number * 1000 + place) for place in range(outputs)), lock_time=number)


def committed(transactions: Sequence[Transaction], reserved: bytes = RESERVED) -> tuple[Transaction, ...]:
    """The transactions with a coinbase that commits to their witnesses."""
    first = transactions[0]
    pays = (*first.pays, Pay(0, commitment(transactions, reserved)))
    return (replace(first, pays=pays, spends=(replace(first.spends[0], witness=(reserved,)),)), *transactions[1:])


@dataclass(frozen=True)
class Block:
    """A block, mined when it is serialised."""

    transactions: tuple[Transaction, ...]
    version: int = 0x20000000
    previous: bytes = GENESIS_HASH[::-1]
    time: int = 1_700_000_000
    bits: int = REGTEST_BITS
    root: bytes | None = None
    below: bool = True
    """Whether the hash is to be below the target."""
    body: bytes | None = field(default=None, repr=False)
    """Takes the place of the serialised transactions."""

    def header(self) -> bytes:
        root = merkle([transaction.txid for transaction in self.transactions]) if self.root is None else self.root
        for nonce in range(1 << 16):
            header = struct.pack("<i32s32sIII", self.version, self.previous, root, self.time, self.bits, nonce)
            if (int.from_bytes(sha256d(header), "little") < 1 << 255) == self.below:
                return header
        raise AssertionError("no nonce gives such a hash")

    def raw(self) -> bytes:
        body = compact(len(self.transactions)) + b"".join(transaction.raw() for transaction in self.transactions)
        return self.header() + (body if self.body is None else self.body)


def witness_block() -> Block:
    """A block that has everything: several transactions, with and without witness, of several inputs and outputs."""
    return Block(
        committed(
            (
                coinbase(),
                spend(1, inputs=2, outputs=3),
                spend(2, witness=(b"signature", b"", b"key" * 100)),
                spend(3, outputs=2),
                spend(4, inputs=3, witness=(b"one",)),
            )
        )
    )
