"""Parsing and verifying Bitcoin blocks: identity, proof of work, Merkle root, witness commitment."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator

from bench import blocks
from bench.measuring import Row, cpus, in_turns, left_out
from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import RawBlock

VOLUME = 100_000_000
"""Bytes that ours parses in one turn."""


def _ours(raw: bytes, network: str, rounds: int) -> float:
    translator = BitcoinTranslator(network)
    claims = RawBlock(raw)
    begun = time.perf_counter()
    for _ in range(rounds):
        translator.translate(claims)
    return len(raw) * rounds / 1e6 / (time.perf_counter() - begun)


def _bitcoinlib(raw: bytes, rounds: int) -> float:
    """Deserialises, and checks what ours checks: proof of work, the ids' Merkle root, and the witness commitment."""
    from bench.peers import bitcoinlib

    begun = time.perf_counter()
    for _ in range(rounds):
        bitcoinlib.parse(raw)
    return len(raw) * rounds / 1e6 / (time.perf_counter() - begun)


def _limit(raw: bytes, ids: list[bytes], witness_ids: list[bytes], rounds: int) -> float:
    from _reading import hash_limit

    seconds: float = hash_limit(raw, ids, witness_ids, rounds)
    return len(raw) * rounds / 1e6 / seconds


def _serialisations(raw: bytes) -> tuple[list[bytes], list[bytes]]:
    """What is hashed for the ids, and for the witness ids.

    Of the latter one is empty where the id is taken instead (no witness) or nothing is hashed (the coinbase). There are none
    where the whole block has no witness.
    """
    from bitcoin.core import CBlock, CTransaction

    transactions = CBlock.deserialize(raw).vtx
    plain = [CTransaction(tx.vin, tx.vout, tx.nLockTime, tx.nVersion).serialize() for tx in transactions]
    whole = [tx.serialize() for tx in transactions]
    if plain == whole:
        return plain, []
    return plain, [b"", *(b"" if tx.wit.is_null() else tx.serialize() for tx in transactions[1:])]


def rows(quick: bool) -> Iterator[Row]:
    """A pair of rows for each block, all on one CPU."""
    real = blocks.mainnet()
    if not real:
        left_out("the named mainnet blocks", "the folder ../shared/data is not there")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus()[0]})
    try:
        yield from _rows(real, quick)
    finally:
        os.sched_setaffinity(0, allowed)


def _rows(real: dict[str, bytes], quick: bool) -> Iterator[Row]:
    chosen = {f"block {name}": (real[name], "main") for name in ("277647", "300025", "363703") if name in real}
    chosen["segwit block of the sample chain"] = (blocks.sample_segwit(), "regtest")
    for name, (raw, network) in chosen.items():
        rounds = max(VOLUME // len(raw) // (10 if quick else 1), 1)
        ids, witness_ids = _serialisations(raw)
        runs: dict[str, Callable[[], float]] = {
            "ours": functools.partial(_ours, raw, network, rounds),
            "python-bitcoinlib": functools.partial(_bitcoinlib, raw, max(rounds // 100, 1)),
            "hashing": functools.partial(_limit, raw, ids, witness_ids, rounds),
        }
        rates = in_turns(runs)
        note = f"{len(raw)} bytes"
        yield Row(f"parse + verify {name}, to python-bitcoinlib", rates["ours"], rates["python-bitcoinlib"], "MB/s", note, 50.0)
        yield Row(f"parse + verify {name}, to its hashes alone", rates["ours"], rates["hashing"], "MB/s", note, 0.7)
