"""Blocks, chains and stores for the tests of the store."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from supervm_rt.chain.types import ForkRules
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.dev import DevTranslator
from supervm_rt.ir.translator import TranslatedBlock
from supervm_rt.model.chain import ForkMode, Reason, Rejection
from supervm_rt.store import Applied, BlockInput, FinalInput, Input, Mirror, RefusedInput, Store

ROOT = Path(__file__).parents[2]
CHAIN = "dev"
PLUGIN = "org.example.feeder"
DEV = DevTranslator()
REGTEST = BitcoinTranslator("regtest")
HEAVIEST = ForkRules(ForkMode.HEAVIEST, final_depth=None, orphan_limit=50)


def environment() -> dict[str, str]:
    """For a child process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in [str(ROOT), *sys.path] if path)}


class Frame(bytes):
    """A block's bytes with what a plugin claims of them."""

    hash = b""
    parent = b""
    height: int | None = None
    time: int | None = None
    weight: int | None = None


def transaction_id(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def block(
    name: str,
    parent: str,
    height: int | None,
    *,
    weight: int = 1,
    transactions: Sequence[str] = (),
    root_height: int | None = None,
    content: bytes = b"",
    final_height: int | None = None,
    position: bytes = b"",
    size: int = 100,
) -> BlockInput:
    """A block whose bytes follow from its name."""
    translated = TranslatedBlock(
        hash=name.encode(),
        parent=parent.encode(),
        weight=weight,
        time=1_700_000_000 + (height or 0),
        root_height=root_height,
        height=height,
        transaction_ids=b"".join(map(transaction_id, transactions)),
        ir=b"ir of " + name.encode() + content,
        content=content,
    )
    return BlockInput(translated, raw_bytes(name, size), position, final_height)


def raw_bytes(name: str, size: int = 100) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


def line(names: str, parent: str, height: int, *, size: int = 100) -> list[Input]:
    """Blocks that follow one another, a name for each word."""
    blocks: list[Input] = []
    for name in names.split():
        blocks.append(block(name, parent, height, transactions=[f"{name}:0"], position=name.encode(), size=size))
        parent, height = name, height + 1
    return blocks


def chain_of(length: int, *, size: int = 100) -> list[Input]:
    """b0 at height 0, b1, ..."""
    return line(" ".join(f"b{number}" for number in range(length)), "before", 0, size=size)


def dev_mirror(store: Store, rules: ForkRules = HEAVIEST, name: str = CHAIN) -> Mirror:
    return store.mirror(name, translator=DEV, rules=rules)


def fill(path: Path, inputs: Sequence[Input], rules: ForkRules = HEAVIEST) -> list[Applied]:
    """Applies the inputs to the store at ``path``, in one batch."""
    with Store.open(path) as store:
        return dev_mirror(store, rules).apply(PLUGIN, inputs)


def events_of(applied: Iterable[Applied]) -> list[tuple[str, str]]:
    return [(str(event.step), event.block.hash.decode()) for one in applied for event in one.events]


def compact(number: int) -> bytes:
    return bytes([number]) if number < 0xFD else b"\xfd" + number.to_bytes(2, "little")


def bitcoin_transaction(spends: Sequence[tuple[bytes, int]], amounts: Sequence[int], script: bytes = b"\x51") -> bytes:
    """A raw transaction without witness; ``spends`` holds (id in display order, index)."""
    inputs = b"".join(id_[::-1] + struct.pack("<I", index) + compact(0) + b"\xff" * 4 for id_, index in spends)
    return _bitcoin_transaction(len(spends), inputs, amounts, script)


def coinbase(height: int, amount: int, note: bytes = b"") -> bytes:
    script = b"\x02" + struct.pack("<H", height) + compact(len(note)) + note
    return _bitcoin_transaction(1, bytes(32) + b"\xff" * 4 + compact(len(script)) + script + b"\xff" * 4, [amount], b"\x51")


def _bitcoin_transaction(count: int, inputs: bytes, amounts: Sequence[int], script: bytes) -> bytes:
    outputs = b"".join(struct.pack("<q", amount) + compact(len(script)) + script for amount in amounts)
    return struct.pack("<i", 2) + compact(count) + inputs + compact(len(amounts)) + outputs + bytes(4)


def double_sha256(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def bitcoin_id(transaction: bytes) -> bytes:
    return double_sha256(transaction)[::-1]


def bitcoin_block(parent: bytes, transactions: Sequence[bytes], time: int = 1_700_000_000) -> BlockInput:
    """A regtest block with its proof of work; ``parent`` in display order."""
    level = [double_sha256(transaction) for transaction in transactions]
    while len(level) > 1:
        level += level[-1:] * (len(level) % 2)
        level = [double_sha256(left + right) for left, right in zip(level[::2], level[1::2], strict=True)]
    nonce = 0
    while True:
        header = struct.pack("<i", 0x20000000) + parent[::-1] + level[0] + struct.pack("<III", time, 0x207FFFFF, nonce)
        if double_sha256(header)[31] < 0x7F:
            break
        nonce += 1
    raw = header + compact(len(transactions)) + b"".join(transactions)
    return BlockInput(REGTEST.translate(Frame(raw)), raw)


def mixed_inputs(seed: int, count: int) -> list[Input]:
    """A chain with forks, late parents, repetitions, refusals and finality; each position is the number of inputs up to it."""
    random = Random(seed)
    tree = [("r", 0)]
    inputs: list[Input] = [block("r", "x", 0, transactions=["r"])]
    late: list[Input] = []
    while len(inputs) < count:
        parent, height = tree[-1 - min(int(random.expovariate(1.2)), len(tree) - 1)]
        name = f"{len(tree)}"
        tree.append((name, height + 1))
        weight, size = random.randint(1, 3), random.choice([10, 300, 20_000])
        made = block(name, parent, height + 1, weight=weight, transactions=[name, f"{name}:1"], size=size)
        if random.random() < 0.2:
            late.append(made)
            continue
        inputs.append(made)
        match random.randint(0, 9):
            case 0 if late:
                inputs.append(late.pop(random.randrange(len(late))))
            case 1:
                inputs.append(random.choice(inputs))
            case 2:
                inputs.append(RefusedInput(Rejection(name.encode(), Reason.MALFORMED, "of the plugin's making")))
            case 3:
                inputs.append(FinalInput(*random.choice([(one.encode(), height) for one, height in tree[-20:-6]] or [(b"r", 0)])))
    return [replace(one, position=str(number).encode()) for number, one in enumerate([*inputs, *late], start=1)]
