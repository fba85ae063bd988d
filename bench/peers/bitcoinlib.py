"""The script that one would write instead: python-bitcoinlib parses block files, sqlite3 keeps what is found."""

from __future__ import annotations

import sqlite3
import struct
import time
from pathlib import Path
from typing import Any

BATCH_BYTES = 4 << 20
"""Raw bytes to a transaction: what our host takes out of the ring at once."""


def parse(raw: bytes) -> Any:
    """A block, checked as its header says: proof of work, Merkle root, witness commitment.

    Deserialising builds both Merkle trees; they are used as they are, since ``CheckBlock`` and ``calc_merkle_root`` would hash
    everything again.
    """
    from bitcoin.core import CBlock, uint256_from_compact, uint256_from_str

    block = CBlock.deserialize(raw)
    if uint256_from_str(block.GetHash()) > uint256_from_compact(block.nBits):
        raise ValueError("high hash")
    if block.vMerkleTree[-1] != block.hashMerkleRoot:
        raise ValueError("wrong Merkle root")
    if block.vWitnessMerkleTree:
        check_commitment(block)
    return block


def check_commitment(block: Any) -> None:
    """BIP 141, for a block with witnesses."""
    from bitcoin.core import Hash

    root = block.vWitnessMerkleTree[-1]
    script = bytes(block.vtx[0].vout[block.get_witness_commitment_index()].scriptPubKey)
    nonce = block.vtx[0].wit.vtxinwit[0].scriptWitness.stack[0]
    if Hash(root + nonce) != script[6:38]:
        raise ValueError("wrong witness commitment")


def mirror(folder: Path, store: Path, magic: bytes) -> tuple[int, int, dict[str, float]]:
    """Files to a database. Returns blocks, raw bytes and the seconds of each stage.

    Durable as ours: a write-ahead log, synced at every commit; and with a cache as large. Kept are the same things: raw block, a
    table of blocks with an index by hash, a table of transactions with an index by id.
    """
    stages = dict.fromkeys(("read", "parse", "commit"), 0.0)
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE blocks (id INTEGER PRIMARY KEY, hash BLOB UNIQUE, parent BLOB, time INTEGER, raw BLOB)")
    connection.execute("CREATE TABLE transactions (hash BLOB, block INTEGER, position INTEGER)")
    connection.execute("CREATE INDEX transactions_by_hash ON transactions (hash)")
    number = size = pending = 0
    connection.execute("BEGIN")
    for path in sorted(folder.glob("blk*.dat")):
        begun = time.perf_counter()
        data = path.read_bytes()
        stages["read"] += time.perf_counter() - begun
        at = 0
        while data[at : at + 4] == magic:
            begun = time.perf_counter()
            (length,) = struct.unpack_from("<I", data, at + 4)
            raw = data[at + 8 : at + 8 + length]
            at += 8 + length
            block = parse(raw)
            ids = block.vMerkleTree[: len(block.vtx)]
            parsed = time.perf_counter()
            stages["parse"] += parsed - begun
            connection.execute(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", (number, block.GetHash(), block.hashPrevBlock, block.nTime, raw)
            )
            connection.executemany(
                "INSERT INTO transactions VALUES (?, ?, ?)", ((id_, number, position) for position, id_ in enumerate(ids))
            )
            number += 1
            size += length
            pending += length
            if pending >= BATCH_BYTES:
                connection.execute("COMMIT")
                connection.execute("BEGIN")
                pending = 0
            stages["commit"] += time.perf_counter() - parsed
    begun = time.perf_counter()
    connection.execute("COMMIT")
    connection.close()
    stages["commit"] += time.perf_counter() - begun
    return number, size, stages
