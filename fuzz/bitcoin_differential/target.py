"""Invariant: the parser accepts a block where python-bitcoinlib reads it and the rules hold, and refuses it for the same reason
where not; what both accept has the same ids, Merkle root and fields, and the IR gives the very bytes again.

The first byte of an input says what is made right before: the commitment, the Merkle root and the nonce, without which hardly
any changed block would come far. ``reference`` lists where the two may differ.
"""

from __future__ import annotations

import struct
from typing import Any

import atheris

with atheris.instrument_imports(include=["bitcoin.core", "supervm_rt.ir"], enable_loader_override=False):
    import bitcoin.core

    from fuzz.bitcoin_differential import reference
    from supervm_rt.ir.bitcoin import BitcoinTranslator
    from supervm_rt.ir.decode import decode_block
    from supervm_rt.ir.translator import BlockRefused, RawBlock, TranslatedBlock

from fuzz import python
from supervm_rt.model.ir import BlockIR, TransactionIR

TRANSLATOR = BitcoinTranslator("regtest")
MERKLE, COMMITMENT, BITS = 1, 2, 4
NONCES = 64
Hash = bitcoin.core.Hash


def mine(raw: bytearray, block: Any, how: int) -> Any | None:
    """Makes right what ``how`` says; the block as it is then read."""
    if how & COMMITMENT:
        place = raw.rfind(bytes.fromhex("6a24aa21a9ed"))
        found = reference.commitment_of(block)
        if found is not None and found[1] is not None and 80 < place <= len(raw) - 38:
            raw[place + 6 : place + 38] = found[1]
            block = reference.read(bytes(raw))
            if block is None:
                return None
    raw[36:68] = reference.levels([tx.GetTxid() for tx in block.vtx])[0]
    if not how & BITS:
        raw[72:76] = bytes.fromhex("ffff7f20")
    for nonce in range(NONCES):
        raw[76] = nonce
        if Hash(bytes(raw[:80]))[31] < 0x7F:
            break
    return reference.read(bytes(raw))


def compact(value: int) -> bytes:
    """A size in its shortest form."""
    if value < 0xFD:
        return bytes([value])
    return b"\xfd" + struct.pack("<H", value) if value < 1 << 16 else b"\xfe" + struct.pack("<I", value)


def text(data: bytes) -> bytes:
    """Bytes behind their length."""
    return compact(len(data)) + data


def transaction_bytes(transaction: TransactionIR) -> bytes:
    """The transaction of the IR, as it is serialised."""
    marked = any(spent.witness for spent in transaction.inputs)
    parts = [struct.pack("<I", transaction.version), b"\0\1" if marked else b"", compact(len(transaction.inputs))]
    for spent in transaction.inputs:
        place = struct.pack("<I", spent.previous_index)
        parts += [spent.previous_id[::-1], place, text(spent.script), struct.pack("<I", spent.sequence)]
    parts.append(compact(len(transaction.outputs)))
    parts += [struct.pack("<Q", out.amount) + text(out.script) for out in transaction.outputs]
    if marked:
        parts += [compact(len(spent.witness)) + b"".join(map(text, spent.witness)) for spent in transaction.inputs]
    return b"".join([*parts, struct.pack("<I", transaction.lock_time)])


def block_bytes(block: BlockIR) -> bytes:
    """The block of the IR, as it is serialised."""
    values: dict[str, Any] = dict(block.header)
    header: bytes = struct.pack("<i", values["version"]) + block.parent[::-1] + values["merkle_root"][::-1]
    header += struct.pack("<III", block.time, values["bits"], values["nonce"])
    return header + compact(len(block.transactions)) + b"".join(map(transaction_bytes, block.transactions))


def compare(ours: TranslatedBlock, theirs: Any, raw: bytes) -> None:
    """Both accept the block: everything in it must be the same."""
    block = decode_block(ours.ir)
    assert ours.hash == theirs.GetHash()[::-1] == block.hash
    assert ours.parent == theirs.hashPrevBlock[::-1] == block.parent
    assert ours.time == theirs.nTime == block.time
    assert ours.transaction_ids == b"".join(tx.GetTxid()[::-1] for tx in theirs.vtx)
    values: dict[str, Any] = dict(block.header)
    assert values["merkle_root"] == theirs.calc_merkle_root()[::-1]
    assert (values["version"], values["bits"], values["nonce"]) == (theirs.nVersion, theirs.nBits, theirs.nNonce)
    assert (values["size"], values["weight"]) == (len(raw), theirs.GetWeight())
    assert len(block.transactions) == len(theirs.vtx)
    for transaction, tx in zip(block.transactions, theirs.vtx, strict=True):
        assert transaction.id == tx.GetTxid()[::-1]
        assert transaction.witness_id == tx.GetHash()[::-1]
        assert (transaction.version, transaction.lock_time) == (tx.nVersion & 0xFFFFFFFF, tx.nLockTime)
        assert transaction.size == len(tx.serialize())
        spent = [(item.previous_id[::-1], item.previous_index, item.script, item.sequence) for item in transaction.inputs]
        assert spent == [(item.prevout.hash, item.prevout.n, bytes(item.scriptSig), item.nSequence) for item in tx.vin]
        assert [(out.amount, out.script) for out in transaction.outputs] == [(o.nValue, bytes(o.scriptPubKey)) for o in tx.vout]
        if tx.has_witness():
            stacks = [tuple(map(bytes, item.scriptWitness.stack)) for item in tx.wit.vtxinwit]
            assert [item.witness for item in transaction.inputs] == stacks
    assert block_bytes(block) == raw


def read(block: bytes) -> TranslatedBlock | BlockRefused:
    """What the parser says."""
    try:
        return TRANSLATOR.translate(RawBlock(block))
    except BlockRefused as refused:
        return refused


def test(data: bytes) -> None:
    """One input."""
    if not data:
        return
    raw = bytearray(data[1:])
    theirs = reference.read(bytes(raw))
    if theirs is not None and theirs.vtx and data[0] & MERKLE:
        theirs = mine(raw, theirs, data[0])
    block = bytes(raw)
    ours = read(block)
    if isinstance(ours, BlockRefused):
        if theirs is None:
            assert ours.reason == "malformed", ours
        elif not reference.tolerated(ours.detail, theirs, block):
            assert ours.reason == reference.verdict(theirs), (ours, reference.verdict(theirs))
        return
    assert theirs is not None
    assert reference.verdict(theirs) == "", reference.verdict(theirs)
    compare(ours, theirs, block)


if __name__ == "__main__":
    python.run(test)
