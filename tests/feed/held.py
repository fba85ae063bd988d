"""What consumers that do not come back hold in memory; a process of its own, which allocates nothing besides.

Arguments: a folder. Prints one JSON object: for each kind of consumer how many there are, the bytes that they hold, the highest
that it was while they read, and the bytes of one block as they hold it.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from supervm_rt.chain.types import ForkRules
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.decode import decode_block
from supervm_rt.ir.translator import RawBlock
from supervm_rt.model.chain import ForkMode
from supervm_rt.store import BlockInput, Store
from supervm_rt.store.feed import open_feed
from tests.ir.blocks import Block, Pay, Spend, Transaction, coinbase, committed, sha256d
from tests.store.support import PLUGIN, chain_of, fill

BLOCKS = 30
TRANSACTIONS = 150
WANTED = bytes.fromhex("5120") + b"w" * 32
"""A taproot script: any input might spend it, so that the output that it spends is looked up in an earlier block."""
SCRIPTS = {"with a filter": [WANTED], "with a filter that finds nothing": [bytes.fromhex("5120") + b"n" * 32]}


def large_blocks() -> list[bytes]:
    """Of half a megabyte each; a third of their transactions pay to WANTED, the others spend from the blocks before."""
    raws: list[bytes] = []
    known: list[list[bytes]] = []
    previous: bytes | None = None
    for height in range(1, BLOCKS + 1):
        made = [coinbase(b"\x02" + height.to_bytes(2, "little"))]
        for number in range(TRANSACTIONS):
            before = known[-1 - number % min(len(known), 12)] if known else [bytes([height]) * 32]
            spends = (Spend(before[number % len(before)], 0, witness=(bytes([number]) * 3000,)),)
            script = WANTED if number % 3 == 0 else b"\x51" * 34
            made.append(Transaction(spends, (Pay(height, script), Pay(number)), lock_time=height * 1000 + number))
        transactions = committed(made)
        block = Block(transactions) if previous is None else Block(transactions, previous=previous)
        raws.append(block.raw())
        previous = sha256d(raws[-1][:80])
        known.append([transaction.txid for transaction in transactions[1:]])
    return raws


def make(folder: Path) -> None:
    """Two stores: of large blocks, and of many small ones."""
    fill(folder / "small.store", chain_of(2000))
    translator = BitcoinTranslator("regtest")
    with Store.open(folder / "large.store", durable=False) as store:
        mirror = store.mirror("bitcoin", translator=translator, rules=ForkRules(ForkMode.HEAVIEST, 100, 20))
        for raw in map(RawBlock, large_blocks()):
            (applied,) = mirror.apply(PLUGIN, [BlockInput(translator.translate(raw), raw)])
            assert applied.outcome.events


def one_block(folder: Path, what: Callable[[bytes, bytes], Any]) -> int:
    """Bytes of what a consumer holds of a block, made of its raw bytes and its IR."""
    with Store.open(folder / "large.store", read_only=True) as store:
        chain = store.chain("bitcoin")
        block = chain.block_at(BLOCKS)
        assert block is not None
        raw, ir = chain.raw(block), chain.ir(block)
        before = tracemalloc.get_traced_memory()[0]
        held = what(bytes(bytearray(raw)), bytes(bytearray(ir)))
        size = tracemalloc.get_traced_memory()[0] - before
        del held
        return size


def found(_: bytes, ir: bytes) -> list[Any]:
    return [one for one in decode_block(ir).transactions if any(output.script == WANTED for output in one.outputs)]


async def held(path: Path, chain: str, consumers: int, **wanted: Any) -> tuple[int, int]:
    """Bytes that so many hold, each stuck at another place, and the most that there were until then."""
    async with open_feed(path) as feed:
        warm = feed.subscribe(chain, follow=False, **wanted)
        while await warm.batch():
            pass
        del warm
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        stuck = []
        for number in range(consumers):
            subscription = feed.subscribe(chain, follow=False, **wanted)
            stuck.append(subscription)
            for _ in range(1 + 5 * number % BLOCKS):
                if await anext(subscription, None) is None:
                    break
        gc.collect()
        now, peak = tracemalloc.get_traced_memory()
        assert len(stuck) == consumers
        return now - before, peak - before


def main() -> None:
    folder = Path(sys.argv[1])
    make(folder)
    gc.collect()
    tracemalloc.start()
    kinds: dict[str, tuple[Path, str, int, dict[str, Any], Callable[[bytes, bytes], Any] | None]] = {
        "of the log alone": (folder / "small.store", "dev", 1000, {}, None),
        "of one step": (folder / "small.store", "dev", 100, {"steps": ["new"]}, None),
        "with bytes": (folder / "large.store", "bitcoin", 15, {"raw": True}, lambda raw, _: raw),
        "with values": (folder / "large.store", "bitcoin", 15, {"ir": True}, lambda _, ir: (ir, decode_block(ir))),
    }
    for kind, scripts in SCRIPTS.items():
        kinds[kind] = (folder / "large.store", "bitcoin", 4, {"scripts": scripts}, found)
    result = {}
    for kind, (path, chain, consumers, wanted, block) in kinds.items():
        size = 0 if block is None else one_block(folder, block)
        now, peak = trio.run(partial(held, path, chain, consumers, **wanted))
        result[kind] = {"consumers": consumers, "held": now, "peak": peak, "block": size}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
