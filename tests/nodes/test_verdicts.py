"""A real bitcoind and our translator, given the same broken blocks, give the same verdict.

The node is filled with the sample chain, block by block; before each true block it gets changed ones. What a translator cannot
know, because it needs other blocks or runs scripts, it must let pass; that the node had something to say then is no difference.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervm_rt.ir.bitcoin import BitcoinTranslator
from supervm_rt.ir.translator import BlockRefused
from tests.nodes.bitcoind import Bitcoind, RpcError
from tests.nodes.claims import Claims
from tests.sample.block_reader import ReadTransaction, block_hash, double_sha256, parse_block, parse_transaction, read_folder

SAMPLE = Path(__file__).parents[2] / "src" / "supervm_rt" / "demo" / "sample-chain"
REGTEST_MAGIC = bytes.fromhex("fabfb5da")
COMMITMENT = bytes.fromhex("6a24aa21a9ed")

REASONS = {
    "Block decode failed": "malformed",
    "Block does not start with a coinbase": "malformed",
    "bad-cb-missing": "malformed",
    "bad-cb-multiple": "malformed",
    "bad-blk-length": "malformed",
    "bad-txns-vout-negative": "malformed",
    "high-hash": "high-hash",
    "bad-txnmrklroot": "bad-txnmrklroot",
    "bad-txns-duplicate": "duplicate-txs",
    "bad-witness-nonce-size": "bad-witness-merkle-match",
    "bad-witness-merkle-match": "bad-witness-merkle-match",
    "unexpected-witness": "bad-witness-merkle-match",
}
"""The node's words for what a translator checks, and ours."""

Mutation = Callable[[random.Random, bytes], bytes | None]


def merkle_root(leaves: list[bytes]) -> bytes:
    while len(leaves) > 1:
        leaves += leaves[-1:] * (len(leaves) % 2)
        leaves = [double_sha256(left + right) for left, right in zip(leaves[::2], leaves[1::2], strict=True)]
    return leaves[0] if leaves else bytes(32)


def count(number: int) -> bytes:
    return bytes([number]) if number < 0xFD else b"\xfd" + number.to_bytes(2, "little")


def sealed(header: bytes, transactions: list[bytes]) -> bytes:
    """A block of these transactions whose witness commitment, Merkle root and proof of work are right."""
    parsed = [parse_transaction(raw) for raw in transactions]
    coinbase = transactions[0] if transactions else b""
    place = coinbase.rfind(COMMITMENT)
    if place >= 0:
        leaves = [bytes(32), *(bytes.fromhex(transaction.witness_identity)[::-1] for transaction in parsed[1:])]
        start = place + len(COMMITMENT)
        coinbase = coinbase[:start] + double_sha256(merkle_root(leaves) + bytes(32)) + coinbase[start + 32 :]
        parsed[0] = parse_transaction(coinbase)
    root = merkle_root([bytes.fromhex(transaction.identity)[::-1] for transaction in parsed])
    body = count(len(transactions)) + coinbase + b"".join(transactions[1:])
    for nonce in range(1_000):
        mined = header[:36] + root + header[68:76] + nonce.to_bytes(4, "little")
        if int(block_hash(mined), 16) < 1 << 254:
            return mined + body
    raise AssertionError("no nonce found")


def parts(raw: bytes) -> tuple[bytes, list[bytes]]:
    return raw[:80], [transaction.raw for transaction in parse_block(raw).transactions]


def flipped(dice: random.Random, raw: bytes, start: int, end: int) -> bytes:
    place = dice.randrange(start, end)
    return raw[:place] + bytes([raw[place] ^ 1 << dice.randrange(8)]) + raw[place + 1 :]


def flip_in_header(dice: random.Random, raw: bytes) -> bytes | None:
    """Not the version's highest bit: Bitcoin Knots reads another, longer kind of header behind it."""
    return flipped(dice, raw, 4, 80)


def flip_in_body(dice: random.Random, raw: bytes) -> bytes | None:
    return flipped(dice, raw, 80, len(raw))


def cut(dice: random.Random, raw: bytes) -> bytes | None:
    return raw[: dice.randrange(80, len(raw))]


def repeat_last_transactions(dice: random.Random, raw: bytes) -> bytes | None:
    """The twin of CVE-2012-2459: same Merkle root, some transactions twice."""
    header, transactions = parts(raw)
    size = 1
    while len(transactions) // size % 2 == 0 and size < len(transactions):
        size *= 2
    if len(transactions) == 1 or len(transactions) % size or size == len(transactions):
        return None
    repeated = transactions + transactions[-size:]
    return header + count(len(repeated)) + b"".join(repeated)


def without_witness(transaction: ReadTransaction) -> bytes:
    if not transaction.has_witness:
        return transaction.raw
    stripped = transaction.raw[:4] + transaction.raw[6:-4]
    for end in range(len(stripped), 0, -1):
        candidate = stripped[:end] + transaction.raw[-4:]
        if double_sha256(candidate)[::-1].hex() == transaction.identity:
            return candidate
    raise AssertionError("a transaction's id is the hash of its bytes without the witness")


def strip_witness(dice: random.Random, raw: bytes) -> bytes | None:
    """Of all but the coinbase: a missing witness of the coinbase is put back by ``submitblock`` before anything is checked."""
    coinbase, *others = parse_block(raw).transactions
    if not any(transaction.has_witness for transaction in others):
        return None
    stripped = [coinbase.raw, *(without_witness(transaction) for transaction in others)]
    return raw[:80] + count(len(stripped)) + b"".join(stripped)


def change_reserved_value(dice: random.Random, raw: bytes) -> bytes | None:
    """The coinbase's witness, which the commitment is made with: another value, or of another length."""
    header, transactions = parts(raw)
    coinbase = transactions[0]
    head, tail = coinbase[:-38], coinbase[-4:]
    if parse_block(raw).transactions[0].has_witness:
        size = dice.choice([0, 31, 32, 33])
        transactions[0] = head + b"\x01" + bytes([size]) + dice.randbytes(size) + tail
    return header + count(len(transactions)) + b"".join(transactions)


def sealed_flip(dice: random.Random, raw: bytes) -> bytes | None:
    """Any one bit of a transaction, in a block that is otherwise made right again."""
    header, transactions = parts(raw)
    if len(transactions) == 1:
        return None
    place = dice.randrange(1, len(transactions))
    transactions[place] = flipped(dice, transactions[place], 0, len(transactions[place]))
    try:
        return sealed(header, transactions)
    except ValueError:
        return header + count(len(transactions)) + b"".join(transactions)


def sealed_without_commitment(dice: random.Random, raw: bytes) -> bytes | None:
    header, transactions = parts(raw)
    transactions[0] = transactions[0].replace(COMMITMENT, bytes.fromhex("6a24aa21a9ee"))
    return sealed(header, transactions)


def sealed_two_coinbases(dice: random.Random, raw: bytes) -> bytes | None:
    header, transactions = parts(raw)
    return sealed(header, [*transactions, transactions[0]])


def sealed_no_coinbase(dice: random.Random, raw: bytes) -> bytes | None:
    header, transactions = parts(raw)
    return sealed(header, transactions[1:]) if len(transactions) > 1 else None


def sealed_empty(dice: random.Random, raw: bytes) -> bytes | None:
    return sealed(raw[:80], [])


MUTATIONS: tuple[Mutation, ...] = (
    flip_in_body,
    flip_in_header,
    cut,
    repeat_last_transactions,
    strip_witness,
    change_reserved_value,
    sealed_flip,
    sealed_flip,
    sealed_without_commitment,
    sealed_two_coinbases,
    sealed_no_coinbase,
    sealed_empty,
)


def broken_blocks(raw: bytes) -> Iterator[tuple[Mutation, bytes]]:
    dice = random.Random(raw)
    for mutation in MUTATIONS:
        changed = mutation(dice, raw)
        if changed is not None:
            yield mutation, changed


def parents_first(blocks: dict[str, bytes]) -> Iterator[bytes]:
    """All but the first, which the node has."""
    known = {next(iter(blocks))}
    waiting = list(blocks.values())[1:]
    while waiting:
        ready = [raw for raw in waiting if raw[4:36][::-1].hex() in known]
        yield from ready
        known.update(block_hash(raw) for raw in ready)
        waiting = [raw for raw in waiting if raw not in ready]


def node_verdict(node: Bitcoind, raw: bytes) -> str:
    try:
        answer = node.rpc("submitblock", raw.hex())
    except RpcError as error:
        return error.message
    return "accepted" if answer is None else str(answer)


def our_verdict(translator: BitcoinTranslator, raw: bytes) -> str:
    try:
        translator.translate(Claims(raw))
    except BlockRefused as refusal:
        return str(refusal.reason)
    return "accepted"


@pytest.mark.nodes
def test_same_verdict_on_broken_blocks(bitcoind_folder: Path) -> None:
    translator = BitcoinTranslator("regtest")
    blocks = {block_hash(raw): raw for raw in read_folder(SAMPLE / "blocks", REGTEST_MAGIC)}
    differences = []
    seen: Counter[str] = Counter()
    with Bitcoind(bitcoind_folder) as node:
        for raw in parents_first(blocks):
            for mutation, changed in broken_blocks(raw):
                said = node_verdict(node, changed)
                ours = our_verdict(translator, changed)
                seen[said] += 1
                # The node's decoder lets pass what we call malformed: bytes left over, a transaction without inputs. Then the
                # Merkle root, which we do not look at any more, is wrong too.
                if (said, ours) == ("bad-txnmrklroot", "malformed") and mutation is flip_in_body:
                    continue
                if ours != REASONS.get(said, "accepted"):
                    differences.append(
                        f"{mutation.__name__} of {block_hash(raw)}: the node says {said}, we say {ours}: {changed.hex()[:400]}"
                    )
            assert our_verdict(translator, raw) == "accepted"
            assert node_verdict(node, raw) in {"accepted", "inconclusive"}, "none of the changed ones poisoned the true block"
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences[:10])
    assert set(REASONS.values()) <= {REASONS[said] for said in seen if said in REASONS}
