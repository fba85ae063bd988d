# cython: embedsignature=True
"""Bitcoin blocks: parse, verify and encode, in two passes over the raw bytes without the GIL.

The first pass checks the encoding and counts, so that the IR can be allocated once and at its exact size; the second fills it
and computes the transaction ids. Both are the same function, so they cannot disagree. A count that the block claims is never
believed beyond what the remaining bytes can hold. The second pass checks its own bounds against the first: bytes that change
in between (the caller promises that they do not) give a refusal, never a write out of bounds.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from supervm_rt.ir.columns import directory
from supervm_rt.ir.schemas import BITCOIN, BITCOIN_WITNESS
from supervm_rt.ir.translator import BlockRefused
from supervm_rt.model.chain import Reason

cdef extern from *:
    """
    /* The one-shot and EVP interfaces look the algorithm up on every call, which costs more than hashing a transaction. */
    #define OPENSSL_SUPPRESS_DEPRECATED
    #include <openssl/sha.h>
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX *context) nogil
    int SHA256_Update(SHA256_CTX *context, const void *data, size_t length) nogil
    int SHA256_Final(uint8_t *digest, SHA256_CTX *context) nogil

cdef enum:
    HEADER_BYTES = 80
    MAX_WEIGHT = 4000000
    MIN_TRANSACTION_BYTES = 51  # version, one input, no output, lock time
    MIN_INPUT_BYTES = 41
    MIN_OUTPUT_BYTES = 9
    COMMITMENT_BYTES = 38

cdef enum Fault:
    SOUND
    ENDS_EARLY
    NOT_CANONICAL
    TOO_MANY
    NO_TRANSACTION
    NO_INPUT
    UNKNOWN_DATA
    NO_WITNESS
    NEGATIVE_AMOUNT
    TRAILING
    TOO_LARGE
    CHANGED
    HIGH_TARGET
    HIGH_HASH
    WRONG_ROOT
    REPEATED
    NO_COINBASE
    SECOND_COINBASE
    UNEXPECTED_WITNESS
    COMMITMENT_NONCE
    COMMITMENT
    NO_MEMORY

FAULTS = {
    ENDS_EARLY: (Reason.MALFORMED, "ends early"),
    NOT_CANONICAL: (Reason.MALFORMED, "a number is not encoded in the shortest way"),
    TOO_MANY: (Reason.MALFORMED, "a count or length is larger than what remains of the block"),
    NO_TRANSACTION: (Reason.MALFORMED, "no transactions"),
    NO_INPUT: (Reason.MALFORMED, "a transaction has no inputs"),
    UNKNOWN_DATA: (Reason.MALFORMED, "a transaction carries optional data of an unknown kind"),
    NO_WITNESS: (Reason.MALFORMED, "a transaction is marked to have a witness and has none"),
    NEGATIVE_AMOUNT: (Reason.MALFORMED, "an amount is negative"),
    TRAILING: (Reason.MALFORMED, "bytes behind the last transaction"),
    TOO_LARGE: (Reason.MALFORMED, "more than 4,000,000 weight units"),
    CHANGED: (Reason.MALFORMED, "the bytes changed while they were read"),
    HIGH_TARGET: (Reason.HIGH_HASH, "the block's bits give no target that this network allows"),
    HIGH_HASH: (Reason.HIGH_HASH, "the hash is above the target that the block's bits give"),
    WRONG_ROOT: (Reason.BAD_MERKLE_ROOT, "the transactions do not give the Merkle root of the header"),
    REPEATED: (Reason.DUPLICATE_TRANSACTIONS, "repeated transactions that leave the Merkle root unchanged"),
    NO_COINBASE: (Reason.MALFORMED, "the first transaction is not a coinbase"),
    SECOND_COINBASE: (Reason.MALFORMED, "more than one coinbase"),
    UNEXPECTED_WITNESS: (Reason.BAD_WITNESS, "witness data without a commitment to it"),
    COMMITMENT_NONCE: (Reason.BAD_WITNESS, "the coinbase's witness is not one item of 32 bytes"),
    COMMITMENT: (Reason.BAD_WITNESS, "the witness data do not give the commitment of the coinbase"),
}
# Faults of the encoding: their place in the bytes helps whoever looks for the cause.
PLACED = frozenset({ENDS_EARLY, NOT_CANONICAL, TOO_MANY, NO_INPUT, UNKNOWN_DATA, NO_WITNESS, NEGATIVE_AMOUNT, TRAILING})


cdef struct Cursor:
    const uint8_t *data
    size_t at
    size_t end
    Fault fault


cdef struct Totals:
    # What was seen so far: after the first pass the sizes of the columns, during the second the next place in them.
    uint32_t transactions
    uint32_t inputs
    uint32_t outputs
    uint32_t witnesses
    uint32_t input_script_bytes
    uint32_t output_script_bytes
    uint32_t witness_bytes
    uint32_t stripped_bytes
    uint32_t coinbases
    bint first_is_coinbase
    bint has_witness


cdef struct Coinbase:
    # Places inside the block, of its first transaction.
    const uint8_t *script
    uint32_t script_length
    const uint8_t *commitment
    const uint8_t *commitment_nonce


cdef struct Columns:
    # The places in the IR where each column's values go, and what the columns were sized for.
    Totals limit
    uint8_t *transaction_id
    uint8_t *transaction_witness_id
    uint8_t *transaction_version
    uint8_t *transaction_lock_time
    uint8_t *transaction_size
    uint8_t *transaction_weight
    uint8_t *transaction_offset
    uint8_t *transaction_input
    uint8_t *transaction_output
    uint8_t *input_previous_id
    uint8_t *input_previous_index
    uint8_t *input_sequence
    uint8_t *input_script
    uint8_t *input_script_data
    uint8_t *input_witness
    uint8_t *output_amount
    uint8_t *output_script
    uint8_t *output_script_data
    uint8_t *witness_item
    uint8_t *witness_item_data
    # Ids in the order of hashing, with room for one more: the leaves of the Merkle trees.
    uint8_t *leaves
    uint8_t *witness_leaves


cdef inline uint32_t get32(const uint8_t *at) noexcept nogil:
    return <uint32_t>at[0] | <uint32_t>at[1] << 8 | <uint32_t>at[2] << 16 | <uint32_t>at[3] << 24


cdef inline uint64_t get64(const uint8_t *at) noexcept nogil:
    return <uint64_t>get32(at) | <uint64_t>get32(at + 4) << 32


cdef inline void put32(uint8_t *column, size_t row, uint32_t value) noexcept nogil:
    cdef uint8_t *at = column + 4 * row
    at[0] = value & 0xFF
    at[1] = (value >> 8) & 0xFF
    at[2] = (value >> 16) & 0xFF
    at[3] = value >> 24


cdef inline void put_reversed(uint8_t *column, size_t row, const uint8_t *hash_) noexcept nogil:
    cdef uint8_t *at = column + 32 * row
    cdef int i
    for i in range(32):
        at[i] = hash_[31 - i]


cdef inline void double_sha256(uint8_t *digest, const uint8_t *data, size_t length) noexcept nogil:
    cdef SHA256_CTX context
    SHA256_Init(&context)
    SHA256_Update(&context, data, length)
    SHA256_Final(digest, &context)
    SHA256_Init(&context)
    SHA256_Update(&context, digest, 32)
    SHA256_Final(digest, &context)


cdef inline const uint8_t *take(Cursor *cursor, size_t length) noexcept nogil:
    # The next bytes, or NULL with a fault set. Callers test the fault.
    cdef const uint8_t *at = cursor.data + cursor.at
    if length > cursor.end - cursor.at:
        cursor.fault = ENDS_EARLY
        return NULL
    cursor.at += length
    return at


cdef inline uint32_t take_size(Cursor *cursor, size_t unit) noexcept nogil:
    # A compact size that says how many things of at least `unit` bytes follow; 0 with a fault set where that cannot be.
    cdef const uint8_t *at = take(cursor, 1)
    cdef uint64_t value
    if at is NULL:
        return 0
    value = at[0]
    if value >= 0xFD:
        at = take(cursor, 2 if value == 0xFD else 4 if value == 0xFE else 8)
        if at is NULL:
            return 0
        if value == 0xFD:
            value = <uint64_t>at[0] | <uint64_t>at[1] << 8
            if value < 0xFD:
                cursor.fault = NOT_CANONICAL
        elif value == 0xFE:
            value = get32(at)
            if value <= 0xFFFF:
                cursor.fault = NOT_CANONICAL
        else:
            value = get64(at)
            if value >> 32 == 0:
                cursor.fault = NOT_CANONICAL
        if cursor.fault != SOUND:
            return 0
    if value > (cursor.end - cursor.at) // unit:
        cursor.fault = TOO_MANY
        return 0
    return <uint32_t>value


cdef void read_inputs(Cursor *cursor, Totals *totals, Columns *columns, Coinbase *coinbase, uint32_t count) noexcept nogil:
    cdef const uint8_t *outpoint
    cdef const uint8_t *script
    cdef const uint8_t *sequence
    cdef uint32_t i, length, row
    cdef bint null
    for i in range(count):
        outpoint = take(cursor, 36)
        if outpoint is NULL:
            return
        length = take_size(cursor, 1)
        if cursor.fault != SOUND:
            return
        script = take(cursor, length)
        sequence = take(cursor, 4)
        if cursor.fault != SOUND:
            return
        if count == 1 and get32(outpoint + 32) == 0xFFFFFFFFU:
            null = True
            for row in range(32):
                if outpoint[row] != 0:
                    null = False
            if null:
                totals.coinbases += 1
                if totals.transactions == 0:
                    totals.first_is_coinbase = True
        if totals.transactions == 0 and i == 0:
            coinbase.script = script
            coinbase.script_length = length
        row = totals.inputs
        if columns is not NULL:
            if row >= columns.limit.inputs or length > columns.limit.input_script_bytes - totals.input_script_bytes:
                cursor.fault = CHANGED
                return
            put_reversed(columns.input_previous_id, row, outpoint)
            memcpy(columns.input_previous_index + 4 * row, outpoint + 32, 4)
            memcpy(columns.input_sequence + 4 * row, sequence, 4)
            memcpy(columns.input_script_data + totals.input_script_bytes, script, length)
            put32(columns.input_script, row + 1, totals.input_script_bytes + length)
        totals.inputs = row + 1
        totals.input_script_bytes += length


cdef void read_outputs(Cursor *cursor, Totals *totals, Columns *columns, Coinbase *coinbase, uint32_t count) noexcept nogil:
    cdef const uint8_t *amount
    cdef const uint8_t *script
    cdef uint32_t i, length, row
    for i in range(count):
        amount = take(cursor, 8)
        if amount is NULL:
            return
        if amount[7] & 0x80:
            cursor.fault = NEGATIVE_AMOUNT
            return
        length = take_size(cursor, 1)
        if cursor.fault != SOUND:
            return
        script = take(cursor, length)
        if totals.transactions == 0 and length >= COMMITMENT_BYTES and memcmp(script, b"\x6a\x24\xaa\x21\xa9\xed", 6) == 0:
            coinbase.commitment = script + 6
        row = totals.outputs
        if columns is not NULL:
            if row >= columns.limit.outputs or length > columns.limit.output_script_bytes - totals.output_script_bytes:
                cursor.fault = CHANGED
                return
            memcpy(columns.output_amount + 8 * row, amount, 8)
            memcpy(columns.output_script_data + totals.output_script_bytes, script, length)
            put32(columns.output_script, row + 1, totals.output_script_bytes + length)
        totals.outputs = row + 1
        totals.output_script_bytes += length


cdef void read_witnesses(Cursor *cursor, Totals *totals, Columns *columns, Coinbase *coinbase, uint32_t count) noexcept nogil:
    # The witness stacks of the last `count` inputs.
    cdef const uint8_t *item
    cdef uint32_t i, j, items, length, row
    cdef bint empty = True
    for i in range(count):
        items = take_size(cursor, 1)
        if items > 0:
            empty = False
        for j in range(items):
            length = take_size(cursor, 1)
            if cursor.fault != SOUND:
                return
            item = take(cursor, length)
            if totals.transactions == 0 and i == 0 and items == 1 and length == 32:
                coinbase.commitment_nonce = item
            row = totals.witnesses
            if columns is not NULL:
                if row >= columns.limit.witnesses or length > columns.limit.witness_bytes - totals.witness_bytes:
                    cursor.fault = CHANGED
                    return
                memcpy(columns.witness_item_data + totals.witness_bytes, item, length)
                put32(columns.witness_item, row + 1, totals.witness_bytes + length)
            totals.witnesses = row + 1
            totals.witness_bytes += length
        if cursor.fault != SOUND:
            return
        if columns is not NULL and columns.input_witness is not NULL:
            put32(columns.input_witness, totals.inputs - count + i + 1, totals.witnesses)
    if empty:
        cursor.fault = NO_WITNESS
    totals.has_witness = True


cdef void read_transaction(Cursor *cursor, Totals *totals, Columns *columns, Coinbase *coinbase) noexcept nogil:
    cdef size_t start = cursor.at
    cdef size_t body, body_end
    cdef uint32_t inputs, outputs, i, size, stripped, row = totals.transactions
    cdef bint marked = False
    cdef const uint8_t *lock_time
    cdef const uint8_t *flag
    cdef SHA256_CTX context
    cdef uint8_t *leaf

    take(cursor, 4)
    body = cursor.at
    if cursor.fault != SOUND:
        return
    inputs = take_size(cursor, MIN_INPUT_BYTES)
    if cursor.fault != SOUND:
        return
    if inputs == 0:
        flag = take(cursor, 1)
        if flag is NULL:
            return
        if flag[0] != 1:
            cursor.fault = NO_INPUT if flag[0] == 0 else UNKNOWN_DATA
            return
        marked = True
        body = cursor.at
        inputs = take_size(cursor, MIN_INPUT_BYTES)
        if cursor.fault != SOUND:
            return
        if inputs == 0:
            cursor.fault = NO_INPUT
            return
    read_inputs(cursor, totals, columns, coinbase, inputs)
    if cursor.fault != SOUND:
        return
    outputs = take_size(cursor, MIN_OUTPUT_BYTES)
    if cursor.fault != SOUND:
        return
    read_outputs(cursor, totals, columns, coinbase, outputs)
    if cursor.fault != SOUND:
        return
    body_end = cursor.at
    if marked:
        read_witnesses(cursor, totals, columns, coinbase, inputs)
    elif columns is not NULL and columns.input_witness is not NULL:
        for i in range(inputs):
            put32(columns.input_witness, totals.inputs - inputs + i + 1, totals.witnesses)
    if cursor.fault != SOUND:
        return
    lock_time = take(cursor, 4)
    if lock_time is NULL:
        return

    size = <uint32_t>(cursor.at - start)
    stripped = <uint32_t>(body_end - body) + 8
    if columns is not NULL:
        if row >= columns.limit.transactions or (marked and columns.witness_leaves is NULL):
            cursor.fault = CHANGED
            return
        memcpy(columns.transaction_version + 4 * row, cursor.data + start, 4)
        memcpy(columns.transaction_lock_time + 4 * row, lock_time, 4)
        put32(columns.transaction_size, row, size)
        put32(columns.transaction_weight, row, 3 * stripped + size)
        put32(columns.transaction_offset, row, <uint32_t>start)
        put32(columns.transaction_input, row + 1, totals.inputs)
        put32(columns.transaction_output, row + 1, totals.outputs)
        leaf = columns.leaves + 32 * row
        if marked:
            SHA256_Init(&context)
            SHA256_Update(&context, cursor.data + start, 4)
            SHA256_Update(&context, cursor.data + body, body_end - body)
            SHA256_Update(&context, lock_time, 4)
            SHA256_Final(leaf, &context)
            SHA256_Init(&context)
            SHA256_Update(&context, leaf, 32)
            SHA256_Final(leaf, &context)
        else:
            double_sha256(leaf, cursor.data + start, size)
        put_reversed(columns.transaction_id, row, leaf)
        if columns.witness_leaves is not NULL:
            if marked:
                double_sha256(columns.witness_leaves + 32 * row, cursor.data + start, size)
            else:
                memcpy(columns.witness_leaves + 32 * row, leaf, 32)
            put_reversed(columns.transaction_witness_id, row, columns.witness_leaves + 32 * row)
    totals.transactions = row + 1
    totals.stripped_bytes += stripped


cdef void read_block(Cursor *cursor, Totals *totals, Columns *columns, Coinbase *coinbase) noexcept nogil:
    # Everything behind the header.
    cdef uint32_t i, count
    memset(totals, 0, sizeof(Totals))
    memset(coinbase, 0, sizeof(Coinbase))
    cursor.at = HEADER_BYTES
    count = take_size(cursor, MIN_TRANSACTION_BYTES)
    if cursor.fault != SOUND:
        return
    if count == 0:
        cursor.fault = NO_TRANSACTION
        return
    totals.stripped_bytes = <uint32_t>cursor.at
    for i in range(count):
        read_transaction(cursor, totals, columns, coinbase)
        if cursor.fault != SOUND:
            return
    if cursor.at != cursor.end:
        cursor.fault = TRAILING
    elif 3 * <uint64_t>totals.stripped_bytes + cursor.end > MAX_WEIGHT:
        cursor.fault = TOO_LARGE


cdef bint expand_target(uint32_t bits, uint8_t *target) noexcept nogil:
    # The target as 32 little-endian bytes; false where it is negative, zero or does not fit.
    cdef uint32_t size = bits >> 24
    cdef uint32_t word = bits & 0x7FFFFF
    cdef uint32_t i, place, byte
    memset(target, 0, 32)
    if size <= 3:
        word >>= 8 * (3 - size)
        size = 3
    if word == 0 or bits & 0x800000:
        return False
    for i in range(3):
        byte = (word >> (8 * i)) & 0xFF
        place = size - 3 + i
        if byte != 0:
            if place >= 32:
                return False
            target[place] = <uint8_t>byte
    return True


cdef bint is_above(const uint8_t *left, const uint8_t *right) noexcept nogil:
    # Whether the one 32-byte little-endian number is larger than the other.
    cdef int i
    for i in range(31, -1, -1):
        if left[i] != right[i]:
            return left[i] > right[i]
    return False


cdef bint merkle_root(uint8_t *hashes, size_t count) noexcept nogil:
    # Leaves the root in the first place; hashes has room for one more. True where a level repeats a pair: then a shorter list
    # of transactions gives the same root (CVE-2012-2459).
    cdef bint repeated = False
    cdef size_t i
    while count > 1:
        for i in range(0, count - 1, 2):
            if memcmp(hashes + 32 * i, hashes + 32 * (i + 1), 32) == 0:
                repeated = True
        if count & 1:
            memcpy(hashes + 32 * count, hashes + 32 * (count - 1), 32)
            count += 1
        count //= 2
        for i in range(count):
            double_sha256(hashes + 32 * i, hashes + 64 * i, 64)
    return repeated


cdef int64_t committed_height(int32_t version, Coinbase *coinbase) noexcept nogil:
    # The height that begins the coinbase's script (BIP 34), -1 where there is none in its shortest form.
    cdef uint32_t length, i
    cdef int64_t height = 0
    if version < 2 or coinbase.script_length == 0:
        return -1
    length = coinbase.script[0]
    if 0x51 <= length <= 0x60:
        return length - 0x50
    if length == 0 or length > 4 or length >= coinbase.script_length:
        return -1
    for i in range(length):
        height |= <int64_t>coinbase.script[1 + i] << (8 * i)
    # A top byte of zero is needed only where the bit below it would be the sign.
    if coinbase.script[length] & 0x80 or height <= 16:
        return -1
    if coinbase.script[length] == 0 and not coinbase.script[length - 1] & 0x80:
        return -1
    return height


cdef Fault check_witness(Columns *columns, Totals *totals, Coinbase *coinbase, bint active) noexcept nogil:
    # BIP 141. Decided by the bytes and the network alone, so that of all blocks of one hash only one is ever accepted.
    cdef uint8_t pair[64]
    cdef uint8_t commitment[32]
    if not active or coinbase.commitment is NULL:
        return UNEXPECTED_WITNESS if totals.has_witness else SOUND
    if coinbase.commitment_nonce is NULL:
        return COMMITMENT_NONCE
    memset(columns.witness_leaves, 0, 32)
    merkle_root(columns.witness_leaves, totals.transactions)
    memcpy(pair, columns.witness_leaves, 32)
    memcpy(pair + 32, coinbase.commitment_nonce, 32)
    double_sha256(commitment, pair, 64)
    return SOUND if memcmp(commitment, coinbase.commitment, 32) == 0 else COMMITMENT


cdef inline uint8_t *advance(uint8_t **at, size_t length) noexcept nogil:
    cdef uint8_t *place = at[0]
    at[0] += length
    return place


cdef size_t data_length(Totals *totals) noexcept nogil:
    # Bytes of all columns behind the directory; the same order as place_columns and ir.schemas.
    cdef size_t length = 32 + 32 + 8 + 4 + 4 + 32 + 4 + 4 + 4 + 4 + 4
    length += 32 * <size_t>totals.transactions + 5 * 4 * <size_t>totals.transactions
    length += 2 * 4 * (<size_t>totals.transactions + 1)
    length += (32 + 4 + 4) * <size_t>totals.inputs + 4 * (<size_t>totals.inputs + 1) + totals.input_script_bytes
    length += 8 * <size_t>totals.outputs + 4 * (<size_t>totals.outputs + 1) + totals.output_script_bytes
    if totals.has_witness:
        length += 32 * <size_t>totals.transactions + 4 * (<size_t>totals.inputs + 1)
        length += 4 * (<size_t>totals.witnesses + 1) + totals.witness_bytes
    return length


cdef uint8_t *place_columns(Columns *columns, Totals *totals, uint8_t *at) noexcept nogil:
    # Says where each column of the tables below `block` begins; the first offset of each is written. Returns the end.
    cdef size_t transactions = totals.transactions
    cdef size_t inputs = totals.inputs
    columns.limit = totals[0]
    columns.transaction_id = advance(&at, 32 * transactions)
    columns.transaction_witness_id = advance(&at, 32 * transactions) if totals.has_witness else NULL
    columns.transaction_version = advance(&at, 4 * transactions)
    columns.transaction_lock_time = advance(&at, 4 * transactions)
    columns.transaction_size = advance(&at, 4 * transactions)
    columns.transaction_weight = advance(&at, 4 * transactions)
    columns.transaction_offset = advance(&at, 4 * transactions)
    columns.transaction_input = advance(&at, 4 * (transactions + 1))
    columns.transaction_output = advance(&at, 4 * (transactions + 1))
    columns.input_previous_id = advance(&at, 32 * inputs)
    columns.input_previous_index = advance(&at, 4 * inputs)
    columns.input_sequence = advance(&at, 4 * inputs)
    columns.input_script = advance(&at, 4 * (inputs + 1))
    columns.input_script_data = advance(&at, totals.input_script_bytes)
    columns.input_witness = advance(&at, 4 * (inputs + 1)) if totals.has_witness else NULL
    columns.output_amount = advance(&at, 8 * <size_t>totals.outputs)
    columns.output_script = advance(&at, 4 * (<size_t>totals.outputs + 1))
    columns.output_script_data = advance(&at, totals.output_script_bytes)
    put32(columns.transaction_input, 0, 0)
    put32(columns.transaction_output, 0, 0)
    put32(columns.input_script, 0, 0)
    put32(columns.output_script, 0, 0)
    if totals.has_witness:
        columns.witness_item = advance(&at, 4 * (<size_t>totals.witnesses + 1))
        columns.witness_item_data = advance(&at, totals.witness_bytes)
        put32(columns.input_witness, 0, 0)
        put32(columns.witness_item, 0, 0)
    return at


cdef uint8_t *write_block(Cursor *cursor, Totals *totals, const uint8_t *hash_, uint8_t *at) noexcept nogil:
    # The table `block`. Returns its end.
    put_reversed(advance(&at, 32), 0, hash_)
    put_reversed(advance(&at, 32), 0, cursor.data + 4)
    memcpy(at, cursor.data + 68, 4)
    put32(at, 1, 0)
    at += 8
    put32(advance(&at, 4), 0, totals.transactions)
    memcpy(advance(&at, 4), cursor.data, 4)
    put_reversed(advance(&at, 32), 0, cursor.data + 36)
    memcpy(advance(&at, 4), cursor.data + 72, 4)
    memcpy(advance(&at, 4), cursor.data + 76, 4)
    put32(advance(&at, 4), 0, <uint32_t>cursor.end)
    put32(advance(&at, 4), 0, totals.stripped_bytes)
    put32(advance(&at, 4), 0, 3 * totals.stripped_bytes + <uint32_t>cursor.end)
    return at


HEAD, HEAD_ROWS = directory("bitcoin", BITCOIN)
HEAD_WITNESS, HEAD_WITNESS_ROWS = directory("bitcoin", BITCOIN_WITNESS)


cdef inline bytes as_bytes(const uint8_t *data, size_t length):
    return PyBytes_FromStringAndSize(<const char *>data, length)


cdef object refusal(Cursor *cursor, Totals *totals, object hash_):
    if cursor.fault == NO_MEMORY:
        return MemoryError()
    reason, detail = FAULTS[cursor.fault]
    if cursor.fault in PLACED:
        detail = f"{detail}: byte {cursor.at}, in transaction {totals.transactions}"
    return BlockRefused(reason, detail, hash_)


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


cdef tuple parse(const uint8_t *data, size_t length, const uint8_t *pow_limit, uint32_t segwit_height):
    cdef Cursor cursor
    cdef Totals totals, written
    cdef Coinbase coinbase
    cdef Columns columns
    cdef uint8_t hash_[32]
    cdef uint8_t target[32]
    cdef uint8_t *at
    cdef uint8_t *end
    cdef uint8_t *scratch = NULL
    cdef const uint8_t *root
    cdef int64_t height = -1
    cdef size_t leaves
    cdef bint repeated

    cursor.data = data
    cursor.at = 0
    cursor.end = length
    cursor.fault = SOUND
    memset(&totals, 0, sizeof(totals))
    memset(&columns, 0, sizeof(columns))
    if length < HEADER_BYTES:
        raise BlockRefused(Reason.MALFORMED, f"{length} bytes; a header alone has {HEADER_BYTES}", None)
    with nogil:
        double_sha256(hash_, data, HEADER_BYTES)
        if length > MAX_WEIGHT:
            cursor.fault = TOO_LARGE
        else:
            read_block(&cursor, &totals, NULL, &coinbase)
        if cursor.fault == SOUND:
            if not expand_target(get32(data + 72), target) or is_above(target, pow_limit):
                cursor.fault = HIGH_TARGET
            elif is_above(hash_, target):
                cursor.fault = HIGH_HASH
    display = as_bytes(hash_, 32)[::-1]
    if cursor.fault != SOUND:
        raise refusal(&cursor, &totals, display)

    head, places = (HEAD_WITNESS, HEAD_WITNESS_ROWS) if totals.has_witness else (HEAD, HEAD_ROWS)
    ir = PyBytes_FromStringAndSize(NULL, len(head) + <Py_ssize_t>data_length(&totals))
    at = <uint8_t *>PyBytes_AS_STRING(ir)
    end = at + len(ir)
    memcpy(at, PyBytes_AS_STRING(head), len(head))
    for place, rows in zip(places, (1, totals.transactions, totals.inputs, totals.outputs, totals.witnesses)):
        put32(at + <Py_ssize_t>place, 0, rows)
    at += len(head)
    with nogil:
        at = place_columns(&columns, &totals, write_block(&cursor, &totals, hash_, at))
        leaves = <size_t>totals.transactions + 1
        scratch = <uint8_t *>malloc(32 * leaves * (2 if totals.has_witness else 1))
        if scratch is NULL or at != end:
            cursor.fault = NO_MEMORY
        else:
            columns.leaves = scratch
            columns.witness_leaves = scratch + 32 * leaves if totals.has_witness else NULL
            read_block(&cursor, &written, &columns, &coinbase)
            if cursor.fault != SOUND or memcmp(&written, &totals, sizeof(totals)) != 0:
                cursor.fault = CHANGED
        if cursor.fault == SOUND:
            root = data + 36
            repeated = merkle_root(columns.leaves, totals.transactions)
            height = committed_height(<int32_t>get32(data), &coinbase)
            if memcmp(columns.leaves, root, 32) != 0:
                cursor.fault = WRONG_ROOT
            elif repeated:
                cursor.fault = REPEATED
            elif not totals.first_is_coinbase:
                cursor.fault = NO_COINBASE
            elif totals.coinbases > 1:
                cursor.fault = SECOND_COINBASE
            else:
                cursor.fault = check_witness(
                    &columns, &totals, &coinbase, segwit_height == 0 or height >= <int64_t>segwit_height
                )
        free(scratch)
    if cursor.fault != SOUND:
        raise refusal(&cursor, &totals, display)
    return (
        display,
        as_bytes(data + 4, 32)[::-1],
        get32(data + 68),
        int.from_bytes(as_bytes(target, 32), "little"),
        None if height < 0 else height,
        as_bytes(columns.transaction_id, 32 * <size_t>totals.transactions),
        ir,
    )
