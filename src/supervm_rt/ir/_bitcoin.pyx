# cython: embedsignature=True
"""Bitcoin blocks to identity and IR: the Python side of ``_native/bitcoin.c``, which does it in two passes without the GIL."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from supervm_rt.ir.columns import directory
from supervm_rt.ir.schemas import BITCOIN, BITCOIN_WITNESS
from supervm_rt.ir.translator import BlockRefused
from supervm_rt.model.chain import Reason

cdef extern from "bitcoin.h" nogil:
    enum: BITCOIN_HEADER_BYTES
    enum bitcoin_fault:
        BITCOIN_SOUND
        BITCOIN_NO_HEADER
        BITCOIN_ENDS_EARLY
        BITCOIN_NOT_CANONICAL
        BITCOIN_TOO_MANY
        BITCOIN_NO_TRANSACTION
        BITCOIN_NO_INPUT
        BITCOIN_UNKNOWN_DATA
        BITCOIN_NO_WITNESS
        BITCOIN_NEGATIVE_AMOUNT
        BITCOIN_TRAILING
        BITCOIN_TOO_LARGE
        BITCOIN_CHANGED
        BITCOIN_HIGH_TARGET
        BITCOIN_HIGH_HASH
        BITCOIN_WRONG_ROOT
        BITCOIN_REPEATED
        BITCOIN_NO_COINBASE
        BITCOIN_SECOND_COINBASE
        BITCOIN_UNEXPECTED_WITNESS
        BITCOIN_COMMITMENT_NONCE
        BITCOIN_COMMITMENT
        BITCOIN_NO_MEMORY
    struct bitcoin_totals:
        uint32_t transactions
        uint32_t inputs
        uint32_t outputs
        uint32_t witnesses
        uint32_t has_witness
    struct bitcoin_block:
        const uint8_t *data
        size_t length
        const uint8_t *pow_limit
        bitcoin_totals totals
        size_t at
        uint8_t hash[32]
        uint8_t target[32]
        int64_t height
        const uint8_t *transaction_ids
    bitcoin_fault bitcoin_read(bitcoin_block *block)
    size_t bitcoin_columns_length(const bitcoin_block *block)
    bitcoin_fault bitcoin_encode(bitcoin_block *block, uint32_t segwit_height, uint8_t *columns, size_t length)

FAULTS = {
    BITCOIN_ENDS_EARLY: (Reason.MALFORMED, "ends early"),
    BITCOIN_NOT_CANONICAL: (Reason.MALFORMED, "a number is not encoded in the shortest way"),
    BITCOIN_TOO_MANY: (Reason.MALFORMED, "a count or length is larger than what remains of the block"),
    BITCOIN_NO_TRANSACTION: (Reason.MALFORMED, "no transactions"),
    BITCOIN_NO_INPUT: (Reason.MALFORMED, "a transaction has no inputs"),
    BITCOIN_UNKNOWN_DATA: (Reason.MALFORMED, "a transaction carries optional data of an unknown kind"),
    BITCOIN_NO_WITNESS: (Reason.MALFORMED, "a transaction is marked to have a witness and has none"),
    BITCOIN_NEGATIVE_AMOUNT: (Reason.MALFORMED, "an amount is negative"),
    BITCOIN_TRAILING: (Reason.MALFORMED, "bytes behind the last transaction"),
    BITCOIN_TOO_LARGE: (Reason.MALFORMED, "more than 4,000,000 weight units"),
    BITCOIN_CHANGED: (Reason.MALFORMED, "the bytes changed while they were read"),
    BITCOIN_HIGH_TARGET: (Reason.HIGH_HASH, "the block's bits give no target that this network allows"),
    BITCOIN_HIGH_HASH: (Reason.HIGH_HASH, "the hash is above the target that the block's bits give"),
    BITCOIN_WRONG_ROOT: (Reason.BAD_MERKLE_ROOT, "the transactions do not give the Merkle root of the header"),
    BITCOIN_REPEATED: (Reason.DUPLICATE_TRANSACTIONS, "repeated transactions that leave the Merkle root unchanged"),
    BITCOIN_NO_COINBASE: (Reason.MALFORMED, "the first transaction is not a coinbase"),
    BITCOIN_SECOND_COINBASE: (Reason.MALFORMED, "more than one coinbase"),
    BITCOIN_UNEXPECTED_WITNESS: (Reason.BAD_WITNESS, "witness data without a commitment to it"),
    BITCOIN_COMMITMENT_NONCE: (Reason.BAD_WITNESS, "the coinbase's witness is not one item of 32 bytes"),
    BITCOIN_COMMITMENT: (Reason.BAD_WITNESS, "the witness data do not give the commitment of the coinbase"),
}
# Faults of the encoding: their place in the bytes helps whoever looks for the cause.
PLACED = frozenset({
    BITCOIN_ENDS_EARLY,
    BITCOIN_NOT_CANONICAL,
    BITCOIN_TOO_MANY,
    BITCOIN_NO_INPUT,
    BITCOIN_UNKNOWN_DATA,
    BITCOIN_NO_WITNESS,
    BITCOIN_NEGATIVE_AMOUNT,
    BITCOIN_TRAILING,
})

HEAD, HEAD_ROWS = directory("bitcoin", BITCOIN)
HEAD_WITNESS, HEAD_WITNESS_ROWS = directory("bitcoin", BITCOIN_WITNESS)


cdef inline bytes as_bytes(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, length)


cdef object refusal(bitcoin_fault fault, bitcoin_block *block):
    if fault == BITCOIN_NO_MEMORY:
        return MemoryError()
    if fault == BITCOIN_NO_HEADER:
        return BlockRefused(Reason.MALFORMED, f"{block.length} bytes; a header alone has {BITCOIN_HEADER_BYTES}", None)
    reason, detail = FAULTS[fault]
    if fault in PLACED:
        detail = f"{detail}: byte {block.at}, in transaction {block.totals.transactions}"
    return BlockRefused(reason, detail, as_bytes(block.hash, 32)[::-1])


def parse_block(source, bytes pow_limit, uint32_t segwit_height):
    """Parses, verifies and encodes one raw block.

    pow_limit: the network's highest target, 32 little-endian bytes. segwit_height: the first height at which witness data may
    exist; 0: at every height, also where the block does not say its own.

    Returns (hash, parent, time, target, BIP 34 height or None, transaction ids, IR): ids in display order, the target as a
    whole number. Raises BlockRefused. The checks are made in bitcoind's order: encoding, proof of work, Merkle root,
    repeated transactions, coinbase, witness. The bytes must not change during the call.
    """
    cdef Py_buffer view
    if len(pow_limit) != 32:
        raise ValueError("pow_limit has to be 32 bytes")
    PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)
    try:
        return parse(<const uint8_t *>view.buf, view.len, <const uint8_t *>PyBytes_AS_STRING(pow_limit), segwit_height)
    finally:
        PyBuffer_Release(&view)


cdef inline void put_rows(uint8_t *at, uint32_t rows) noexcept:
    cdef int i
    for i in range(4):
        at[i] = (rows >> (8 * i)) & 0xFF


cdef tuple parse(const uint8_t *data, size_t length, const uint8_t *pow_limit, uint32_t segwit_height):
    cdef bitcoin_block block
    cdef bitcoin_fault fault
    cdef size_t columns_length
    cdef uint8_t *at
    block.data = data
    block.length = length
    block.pow_limit = pow_limit
    with nogil:
        fault = bitcoin_read(&block)
    if fault != BITCOIN_SOUND:
        raise refusal(fault, &block)

    head, places = (HEAD_WITNESS, HEAD_WITNESS_ROWS) if block.totals.has_witness else (HEAD, HEAD_ROWS)
    columns_length = bitcoin_columns_length(&block)
    ir = PyBytes_FromStringAndSize(NULL, len(head) + <Py_ssize_t>columns_length)
    at = <uint8_t *>PyBytes_AS_STRING(ir)
    memcpy(at, PyBytes_AS_STRING(head), len(head))
    rows = (1, block.totals.transactions, block.totals.inputs, block.totals.outputs, block.totals.witnesses)
    for place, count in zip(places, rows):
        put_rows(at + <Py_ssize_t>place, count)
    at += len(head)
    with nogil:
        fault = bitcoin_encode(&block, segwit_height, at, columns_length)
    if fault != BITCOIN_SOUND:
        raise refusal(fault, &block)
    return (
        as_bytes(block.hash, 32)[::-1],
        as_bytes(data + 4, 32)[::-1],
        int.from_bytes(as_bytes(data + 68, 4), "little"),
        int.from_bytes(as_bytes(block.target, 32), "little"),
        None if block.height < 0 else block.height,
        as_bytes(block.transaction_ids, 32 * <size_t>block.totals.transactions),
        ir,
    )
