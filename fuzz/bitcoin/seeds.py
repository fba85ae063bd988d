"""Invariant: the blocks that are accepted as they are stay so; the campaigns begin with blocks that pass every check."""

from __future__ import annotations

from dataclasses import replace

from bench.blocks import REGTEST_MAGIC, SAMPLE, unframe
from tests.ir.blocks import Block, Pay, Spend, Transaction, coinbase, committed, spend, witness_block

LARGEST = 2000
"""Bytes of the largest block of the sample chain that is taken: small ones are changed faster."""
PLAIN, NO_MEMORY, WRONG_SIZE, LOW_LIMIT, TWO, LARGE = 0, 8, 16, 32, 64, 128


def sample_blocks() -> list[bytes]:
    """Small blocks of the sample chain, of different lengths."""
    key = (SAMPLE / "blocks" / "xor.dat").read_bytes()
    found: dict[int, bytes] = {}
    for path in sorted((SAMPLE / "blocks").glob("blk*.dat")):
        data = path.read_bytes()
        for block in unframe(bytes(byte ^ key[at % len(key)] for at, byte in enumerate(data)), REGTEST_MAGIC):
            if len(block) <= LARGEST:
                found.setdefault(len(block), block)
    return list(found.values())


def made_blocks() -> dict[str, Block]:
    """Blocks with what is rare in the sample chain; those named after a fault have it."""
    plain = Block((coinbase(), spend(1), spend(2, inputs=2, outputs=2)))
    witness = witness_block()
    first = witness.transactions[0]
    heights = {f"height-{script.hex() or 'none'}": Block((coinbase(script),)) for script in _height_scripts()}
    return heights | {
        "plain": plain,
        "witness": witness,
        "old": replace(plain, version=1),
        "repeated": Block((coinbase(), *(spend(number) for number in (1, 2, 3, 4, 5, 4, 5)))),
        "no-coinbase": Block((spend(1), spend(2))),
        "second-coinbase": Block((coinbase(), coinbase(b"\x02\x2d\x01"))),
        "wrong-root": replace(plain, root=bytes(32)),
        "high-hash": replace(plain, below=False),
        "unexpected-witness": Block((coinbase(), spend(1, witness=(b"w",)))),
        "no-commitment-nonce": replace(witness, transactions=(_bare(first), *witness.transactions[1:])),
        "wrong-commitment": replace(witness, transactions=(first, spend(9, witness=(b"w",)), *witness.transactions[1:])),
        "long-sizes": Block((coinbase(), Transaction((Spend(bytes(31) + b"\1", 0, bytes(300)),), (Pay(1, bytes(70000)),)))),
        "many": Block((coinbase(), *(spend(number) for number in range(260)))),
        "empty-outputs": Block((coinbase(pays=()), spend(1, outputs=0))),
    }


def _bare(transaction: Transaction) -> Transaction:
    return replace(transaction, spends=(replace(transaction.spends[0], witness=()),))


def _height_scripts() -> list[bytes]:
    return [
        *(b"", b"\x00\x00", b"\x51", b"\x60", b"\x01\x10", b"\x01\x11", b"\x01\x80", b"\x02\x7f\x00", b"\x02\xff\x00"),
        b"\x03\x01\x02\x03",
        b"\x04\x01\x02\x03\x04",
        b"\x05\x01\x02\x03\x04\x05",
        b"\x03\x01",
    ]


def _bits() -> dict[str, Block]:
    """Targets that are none, or that no network allows."""
    bits = (
        0x00000001,
        0x01010000,
        0x02010000,
        0x03000001,
        0x207FFFFF,
        0x20800001,
        0x21000100,
        0x22000001,
        0x23000001,
        0x217FFFFF,
    )
    plain = Block((coinbase(),))
    return {f"bits-{value:08x}": replace(plain, bits=value) for value in bits}


def _encodings() -> dict[str, bytes]:
    """Blocks whose encoding has a fault, from the first byte of their transactions on."""
    header = Block((coinbase(),)).header()
    body = coinbase().raw()
    version, rest = body[:4], body[4:]
    return {
        "no-header": header[:79],
        "ends-early": header,
        "no-transaction": header + b"\0",
        "long-count": header + b"\xfd\x01\x00" + body,
        "longer-count": header + b"\xfe\x01\x00\x00\x00" + body,
        "longest-count": header + b"\xff" + (1).to_bytes(8, "little") + body,
        "count-beyond": header + b"\xff" + (1 << 40).to_bytes(8, "little") + body,
        "no-input": header + b"\1" + version + b"\0\0" + bytes(60),
        "unknown-data": header + b"\1" + version + b"\0\2" + rest + bytes(4),
        "marked-no-input": header + b"\1" + version + b"\0\1\0" + bytes(60),
        "no-witness": header + b"\1" + version + b"\0\1" + rest[:-4] + b"\0" + rest[-4:],
        "negative": header + b"\1" + body.replace((50 * 10**8).to_bytes(8, "little"), b"\xff" * 8),
        "trailing": header + b"\1" + body + b"\0",
    }


def _two() -> dict[str, bytes]:
    """Pairs of blocks of one length: the second takes the place of the first between the two passes."""

    def sized(transactions: tuple[Transaction, ...], length: int) -> bytes:
        for padding in range(400):
            raw = Block((coinbase(pays=(Pay(1, bytes(padding)),)), *transactions)).raw()
            if len(raw) == length:
                return raw
        raise AssertionError("no padding gives this length")

    few = (spend(1, inputs=3, outputs=2),)
    half_empty = Transaction((Spend(bytes(31) + b"\1", 0), Spend(bytes(31) + b"\2", 0, witness=(b"x",))))
    as_long = Transaction((Spend(bytes(31) + b"\1", 0, b"\x51" * 3), Spend(bytes(31) + b"\2", 0, b"\x51" * 3)))
    shapes: dict[str, tuple[tuple[Transaction, ...], tuple[Transaction, ...]]] = {
        "transactions": ((spend(1, inputs=2, outputs=3),), (spend(1), spend(2))),
        "marked": ((as_long,), (half_empty,)),
        "inputs": ((spend(1, outputs=5),), (spend(1, inputs=2),)),
        "outputs": (few, (spend(1, inputs=2, outputs=5),)),
        "input-script": (few, (Transaction((Spend(bytes(31) + b"\1", 0, bytes(70)),)),)),
        "output-script": ((spend(1, inputs=2),), (Transaction((Spend(bytes(31) + b"\1", 0),), (Pay(1, bytes(90)),)),)),
    }
    pairs = {}
    for name, (first, second) in shapes.items():
        length = max(len(Block((coinbase(pays=(Pay(1, bytes(120)),)), *shape)).raw()) for shape in (first, second))
        pairs[name] = sized(first, length) + sized(second, length)
    witness = committed((coinbase(), spend(1, witness=(b"item", b"another"), inputs=2)))
    more = committed((coinbase(), spend(1, witness=(b"x", b"item", b"nother"), inputs=2)))
    longer = committed((coinbase(), spend(1, witness=(b"itemanother!",), inputs=2)))
    base = Block(witness).raw()
    for name, other in (("witnesses", more), ("witness-bytes", longer)):
        raw = Block(other).raw()
        if len(raw) == len(base):
            pairs[name] = base + raw
    return pairs


def inputs() -> dict[str, bytes]:
    """The first inputs of the campaign ``bitcoin``: four bytes that say how, and a block."""

    def how(flags: int, block: bytes, change: bytes = bytes(3)) -> bytes:
        return bytes([flags]) + change + block

    made = made_blocks() | _bits()
    found = {name: how(PLAIN, block.raw()) for name, block in made.items()}
    found |= {f"at-1-{name}": how(1, block.raw()) for name, block in made.items()}
    found |= {f"at-500-{name}": how(2, made[name].raw()) for name in ("plain", "witness", "unexpected-witness")}
    found |= {f"sample-{len(block)}": how(PLAIN, block) for block in sample_blocks()}
    found |= {f"encoding-{name}": how(PLAIN, block) for name, block in _encodings().items()}
    found |= {f"two-{name}": how(TWO, pair) for name, pair in _two().items()}
    whole = made["witness"].raw()
    found |= {f"cut-{length}": how(PLAIN, whole[:length]) for length in range(80, len(whole), 7)}
    found |= {
        f"changed-{at}-{value}": how(4, whole, at.to_bytes(2, "little") + bytes([value]))
        for at in range(80, min(len(whole), 400), 5)
        for value in (0, 1, 2, 0xFD)
    }
    plain = made["plain"].raw()
    found["no-memory"] = how(NO_MEMORY, plain)
    found["wrong-size"] = how(WRONG_SIZE, plain)
    found["low-limit"] = how(LOW_LIMIT, plain)
    found["very-limit"] = how(LOW_LIMIT, plain, b"\1\0\0")
    found["large"] = how(LARGE, plain, b"\xff\xff\0")
    found["larger"] = how(LARGE | 1, plain, b"\xff\xff\0")
    return found
