/* The one-shot and EVP interfaces look the algorithm up on every call, which costs more than hashing a transaction. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "bitcoin.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#define MIN_TRANSACTION_BYTES 51 /* version, one input, no output, lock time */
#define MIN_INPUT_BYTES 41
#define MIN_OUTPUT_BYTES 9
#define COMMITMENT_BYTES 38

struct cursor {
    const uint8_t *data;
    size_t at;
    size_t end;
    enum bitcoin_fault fault;
};

/* Places inside the block, of its first transaction. */
struct coinbase {
    const uint8_t *script;
    uint32_t script_length;
    const uint8_t *commitment;
    const uint8_t *commitment_nonce;
};

/* The places in the IR where each column's values go, and what the columns were sized for. */
struct columns {
    struct bitcoin_totals limit;
    uint8_t *transaction_id;
    uint8_t *transaction_witness_id;
    uint8_t *transaction_version;
    uint8_t *transaction_lock_time;
    uint8_t *transaction_size;
    uint8_t *transaction_weight;
    uint8_t *transaction_offset;
    uint8_t *transaction_input;
    uint8_t *transaction_output;
    uint8_t *input_previous_id;
    uint8_t *input_previous_index;
    uint8_t *input_sequence;
    uint8_t *input_script;
    uint8_t *input_script_data;
    uint8_t *input_witness;
    uint8_t *output_amount;
    uint8_t *output_script;
    uint8_t *output_script_data;
    uint8_t *witness_item;
    uint8_t *witness_item_data;
    /* Ids in the order of hashing, with room for one more: the leaves of the Merkle trees. */
    uint8_t *leaves;
    uint8_t *witness_leaves;
};

static inline uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t get64(const uint8_t *at)
{
    return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
}

static inline void put32(uint8_t *column, size_t row, uint32_t value)
{
    uint8_t *at = column + 4 * row;
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static inline void put_reversed(uint8_t *column, size_t row, const uint8_t *hash)
{
    uint64_t words[BITCOIN_HASH_BYTES / 8];
    memcpy(words, hash, sizeof words);
    for (int i = 0; i < BITCOIN_HASH_BYTES / 8; i++) {
        uint64_t word = __builtin_bswap64(words[BITCOIN_HASH_BYTES / 8 - 1 - i]);
        memcpy(column + BITCOIN_HASH_BYTES * row + 8 * i, &word, 8);
    }
}

static inline void double_sha256(uint8_t *digest, const uint8_t *data, size_t length)
{
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, data, length);
    SHA256_Final(digest, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, digest, BITCOIN_HASH_BYTES);
    SHA256_Final(digest, &context);
}

/* ---- the encoding ------------------------------------------------------------------------------------------------------ */

/* The next bytes, or NULL with a fault set. Callers test the fault. */
static inline const uint8_t *take(struct cursor *cursor, size_t length)
{
    const uint8_t *at = cursor->data + cursor->at;
    if (length > cursor->end - cursor->at) {
        cursor->fault = BITCOIN_ENDS_EARLY;
        return NULL;
    }
    cursor->at += length;
    return at;
}

/* The value of a compact size that begins with first, or 0 with a fault set. */
static uint64_t take_long_size(struct cursor *cursor, uint8_t first)
{
    const uint8_t *at = take(cursor, first == 0xFD ? 2 : first == 0xFE ? 4 : 8);
    if (!at)
        return 0;
    uint64_t value, least;
    if (first == 0xFD) {
        value = (uint64_t)at[0] | (uint64_t)at[1] << 8;
        least = 0xFD;
    } else if (first == 0xFE) {
        value = get32(at);
        least = UINT64_C(1) << 16;
    } else {
        value = get64(at);
        least = UINT64_C(1) << 32;
    }
    if (value < least) {
        cursor->fault = BITCOIN_NOT_CANONICAL;
        return 0;
    }
    return value;
}

/* A compact size that says how many things of at least unit bytes follow; 0 with a fault set where that cannot be. */
static inline uint32_t take_size(struct cursor *cursor, size_t unit)
{
    const uint8_t *at = take(cursor, 1);
    if (!at)
        return 0;
    uint64_t value = at[0];
    if (value >= 0xFD)
        value = take_long_size(cursor, at[0]);
    if (value > (cursor->end - cursor->at) / unit) {
        cursor->fault = BITCOIN_TOO_MANY;
        return 0;
    }
    return (uint32_t)value;
}

static bool is_null_id(const uint8_t *id)
{
    static const uint8_t null[BITCOIN_HASH_BYTES];
    return memcmp(id, null, sizeof null) == 0;
}

static void read_inputs(struct cursor *cursor, struct bitcoin_totals *totals, const struct columns *columns,
                        struct coinbase *coinbase, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *outpoint = take(cursor, 36);
        if (!outpoint)
            return;
        uint32_t length = take_size(cursor, 1);
        if (cursor->fault != BITCOIN_SOUND)
            return;
        const uint8_t *script = take(cursor, length);
        const uint8_t *sequence = take(cursor, 4);
        if (!sequence)
            return;
        if (count == 1 && get32(outpoint + 32) == UINT32_MAX && is_null_id(outpoint)) {
            totals->coinbases++;
            if (totals->transactions == 0)
                totals->first_is_coinbase = 1;
        }
        if (totals->transactions == 0 && i == 0) {
            coinbase->script = script;
            coinbase->script_length = length;
        }
        uint32_t row = totals->inputs;
        if (columns) {
            if (row >= columns->limit.inputs || length > columns->limit.input_script_bytes - totals->input_script_bytes) {
                cursor->fault = BITCOIN_CHANGED;
                return;
            }
            put_reversed(columns->input_previous_id, row, outpoint);
            memcpy(columns->input_previous_index + 4 * (size_t)row, outpoint + 32, 4);
            memcpy(columns->input_sequence + 4 * (size_t)row, sequence, 4);
            memcpy(columns->input_script_data + totals->input_script_bytes, script, length);
            put32(columns->input_script, (size_t)row + 1, totals->input_script_bytes + length);
        }
        totals->inputs = row + 1;
        totals->input_script_bytes += length;
    }
}

static void read_outputs(struct cursor *cursor, struct bitcoin_totals *totals, const struct columns *columns,
                         struct coinbase *coinbase, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *amount = take(cursor, 8);
        if (!amount)
            return;
        if (amount[7] & 0x80) {
            cursor->fault = BITCOIN_NEGATIVE_AMOUNT;
            return;
        }
        uint32_t length = take_size(cursor, 1);
        if (cursor->fault != BITCOIN_SOUND)
            return;
        const uint8_t *script = take(cursor, length); /* Never NULL: take_size saw that so many bytes follow. */
        if (totals->transactions == 0 && length >= COMMITMENT_BYTES && memcmp(script, "\x6a\x24\xaa\x21\xa9\xed", 6) == 0)
            coinbase->commitment = script + 6;
        uint32_t row = totals->outputs;
        if (columns) {
            if (row >= columns->limit.outputs || length > columns->limit.output_script_bytes - totals->output_script_bytes) {
                cursor->fault = BITCOIN_CHANGED;
                return;
            }
            memcpy(columns->output_amount + 8 * (size_t)row, amount, 8);
            memcpy(columns->output_script_data + totals->output_script_bytes, script, length);
            put32(columns->output_script, (size_t)row + 1, totals->output_script_bytes + length);
        }
        totals->outputs = row + 1;
        totals->output_script_bytes += length;
    }
}

/* The witness stacks of the last count inputs. */
static void read_witnesses(struct cursor *cursor, struct bitcoin_totals *totals, const struct columns *columns,
                           struct coinbase *coinbase, uint32_t count)
{
    bool empty = true;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t items = take_size(cursor, 1);
        if (cursor->fault != BITCOIN_SOUND)
            return;
        if (items > 0)
            empty = false;
        for (uint32_t j = 0; j < items; j++) {
            uint32_t length = take_size(cursor, 1);
            if (cursor->fault != BITCOIN_SOUND)
                return;
            const uint8_t *item = take(cursor, length); /* Never NULL, as above. */
            if (totals->transactions == 0 && i == 0 && items == 1 && length == 32)
                coinbase->commitment_nonce = item;
            uint32_t row = totals->witnesses;
            if (columns) {
                if (row >= columns->limit.witnesses || length > columns->limit.witness_bytes - totals->witness_bytes) {
                    cursor->fault = BITCOIN_CHANGED;
                    return;
                }
                memcpy(columns->witness_item_data + totals->witness_bytes, item, length);
                put32(columns->witness_item, (size_t)row + 1, totals->witness_bytes + length);
            }
            totals->witnesses = row + 1;
            totals->witness_bytes += length;
        }
        if (columns && columns->input_witness)
            put32(columns->input_witness, (size_t)totals->inputs - count + i + 1, totals->witnesses);
    }
    if (empty)
        cursor->fault = BITCOIN_NO_WITNESS;
    totals->has_witness = 1;
}

/* Where the parts of one transaction lie that its two ids are made of. */
struct span {
    size_t start;
    size_t body; /* Inputs and outputs with their counts. */
    size_t body_end;
    size_t lock_time;
    bool marked; /* Encoded with witness data. */
};

static void hash_transaction(uint8_t *leaf, const uint8_t *data, const struct span *span)
{
    if (!span->marked) {
        double_sha256(leaf, data + span->start, span->lock_time + 4 - span->start);
        return;
    }
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, data + span->start, 4);
    SHA256_Update(&context, data + span->body, span->body_end - span->body);
    SHA256_Update(&context, data + span->lock_time, 4);
    SHA256_Final(leaf, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, leaf, BITCOIN_HASH_BYTES);
    SHA256_Final(leaf, &context);
}

static enum bitcoin_fault write_transaction(const struct columns *columns, const struct bitcoin_totals *totals,
                                            const uint8_t *data, const struct span *span, uint32_t size, uint32_t stripped)
{
    uint32_t row = totals->transactions;
    if (row >= columns->limit.transactions || (span->marked && !columns->witness_leaves))
        return BITCOIN_CHANGED;
    memcpy(columns->transaction_version + 4 * (size_t)row, data + span->start, 4);
    memcpy(columns->transaction_lock_time + 4 * (size_t)row, data + span->lock_time, 4);
    put32(columns->transaction_size, row, size);
    put32(columns->transaction_weight, row, 3 * stripped + size);
    put32(columns->transaction_offset, row, (uint32_t)span->start);
    put32(columns->transaction_input, (size_t)row + 1, totals->inputs);
    put32(columns->transaction_output, (size_t)row + 1, totals->outputs);
    uint8_t *leaf = columns->leaves + BITCOIN_HASH_BYTES * (size_t)row;
    hash_transaction(leaf, data, span);
    put_reversed(columns->transaction_id, row, leaf);
    if (columns->witness_leaves) {
        uint8_t *witness_leaf = columns->witness_leaves + BITCOIN_HASH_BYTES * (size_t)row;
        if (span->marked)
            double_sha256(witness_leaf, data + span->start, size);
        else
            memcpy(witness_leaf, leaf, BITCOIN_HASH_BYTES);
        put_reversed(columns->transaction_witness_id, row, witness_leaf);
    }
    return BITCOIN_SOUND;
}

/* The number of a transaction's inputs, of which there is at least one; 0 with a fault set. *marked: witness data will follow,
 * and the body begins at the cursor's last place. */
static uint32_t take_input_count(struct cursor *cursor, bool *marked)
{
    uint32_t inputs = take_size(cursor, MIN_INPUT_BYTES);
    if (cursor->fault != BITCOIN_SOUND || inputs != 0)
        return inputs;
    const uint8_t *flag = take(cursor, 1);
    if (!flag)
        return 0;
    *marked = flag[0] == 1;
    if (!*marked)
        cursor->fault = flag[0] == 0 ? BITCOIN_NO_INPUT : BITCOIN_UNKNOWN_DATA;
    return 0;
}

static void read_transaction(struct cursor *cursor, struct bitcoin_totals *totals, const struct columns *columns,
                             struct coinbase *coinbase)
{
    struct span span = {.start = cursor->at};
    if (!take(cursor, 4))
        return;
    span.body = cursor->at;
    uint32_t inputs = take_input_count(cursor, &span.marked);
    if (span.marked) {
        span.body = cursor->at;
        inputs = take_size(cursor, MIN_INPUT_BYTES);
        if (cursor->fault == BITCOIN_SOUND && inputs == 0)
            cursor->fault = BITCOIN_NO_INPUT;
    }
    if (cursor->fault != BITCOIN_SOUND)
        return;
    read_inputs(cursor, totals, columns, coinbase, inputs);
    if (cursor->fault != BITCOIN_SOUND)
        return;
    uint32_t outputs = take_size(cursor, MIN_OUTPUT_BYTES);
    if (cursor->fault != BITCOIN_SOUND)
        return;
    read_outputs(cursor, totals, columns, coinbase, outputs);
    if (cursor->fault != BITCOIN_SOUND)
        return;
    span.body_end = cursor->at;
    if (span.marked)
        read_witnesses(cursor, totals, columns, coinbase, inputs);
    else if (columns && columns->input_witness)
        for (uint32_t i = 0; i < inputs; i++)
            put32(columns->input_witness, (size_t)totals->inputs - inputs + i + 1, totals->witnesses);
    if (cursor->fault != BITCOIN_SOUND)
        return;
    span.lock_time = cursor->at;
    if (!take(cursor, 4))
        return;
    uint32_t size = (uint32_t)(cursor->at - span.start);
    uint32_t stripped = (uint32_t)(span.body_end - span.body) + 8;
    if (columns)
        cursor->fault = write_transaction(columns, totals, cursor->data, &span, size, stripped);
    totals->transactions++;
    totals->stripped_bytes += stripped;
}

/* Everything behind the header. */
static void read_block(struct cursor *cursor, struct bitcoin_totals *totals, const struct columns *columns,
                       struct coinbase *coinbase)
{
    memset(totals, 0, sizeof *totals);
    memset(coinbase, 0, sizeof *coinbase);
    cursor->at = BITCOIN_HEADER_BYTES;
    uint32_t count = take_size(cursor, MIN_TRANSACTION_BYTES);
    if (cursor->fault != BITCOIN_SOUND)
        return;
    if (count == 0) {
        cursor->fault = BITCOIN_NO_TRANSACTION;
        return;
    }
    totals->stripped_bytes = (uint32_t)cursor->at;
    for (uint32_t i = 0; i < count; i++) {
        read_transaction(cursor, totals, columns, coinbase);
        if (cursor->fault != BITCOIN_SOUND)
            return;
    }
    if (cursor->at != cursor->end)
        cursor->fault = BITCOIN_TRAILING;
    else if (3 * (uint64_t)totals->stripped_bytes + cursor->end > BITCOIN_MAX_WEIGHT)
        cursor->fault = BITCOIN_TOO_LARGE;
}

/* ---- proof of work ----------------------------------------------------------------------------------------------------- */

/* The target as 32 little-endian bytes; false where it is negative, zero or does not fit. */
static bool expand_target(uint32_t bits, uint8_t *target)
{
    uint32_t size = bits >> 24;
    uint32_t word = bits & 0x7FFFFF;
    memset(target, 0, BITCOIN_HASH_BYTES);
    if (size <= 3) {
        word >>= 8 * (3 - size);
        size = 3;
    }
    if (word == 0 || bits & 0x800000)
        return false;
    for (uint32_t i = 0; i < 3; i++) {
        uint8_t byte = (uint8_t)(word >> (8 * i));
        uint32_t place = size - 3 + i;
        if (byte == 0)
            continue;
        if (place >= BITCOIN_HASH_BYTES)
            return false;
        target[place] = byte;
    }
    return true;
}

/* Whether the one 32-byte little-endian number is larger than the other. */
static bool is_above(const uint8_t *left, const uint8_t *right)
{
    int i = BITCOIN_HASH_BYTES - 1;
    while (i > 0 && left[i] == right[i])
        i--;
    return left[i] > right[i];
}

enum bitcoin_fault bitcoin_read(struct bitcoin_block *block)
{
    struct cursor cursor = {.data = block->data, .end = block->length};
    struct coinbase coinbase;
    memset(&block->totals, 0, sizeof block->totals);
    block->at = 0;
    if (block->length < BITCOIN_HEADER_BYTES)
        return BITCOIN_NO_HEADER;
    double_sha256(block->hash, block->data, BITCOIN_HEADER_BYTES);
    if (block->length > BITCOIN_MAX_WEIGHT)
        return BITCOIN_TOO_LARGE;
    read_block(&cursor, &block->totals, NULL, &coinbase);
    block->at = cursor.at;
    if (cursor.fault != BITCOIN_SOUND)
        return cursor.fault;
    if (!expand_target(get32(block->data + 72), block->target) || is_above(block->target, block->pow_limit))
        return BITCOIN_HIGH_TARGET;
    return is_above(block->hash, block->target) ? BITCOIN_HIGH_HASH : BITCOIN_SOUND;
}

/* ---- commitments ------------------------------------------------------------------------------------------------------- */

/* Leaves the root in the first place; hashes has room for one more. True where a level repeats a pair: then a shorter list of
 * transactions gives the same root (CVE-2012-2459). */
static bool merkle_root(uint8_t *hashes, size_t count)
{
    bool repeated = false;
    while (count > 1) {
        for (size_t i = 0; i + 1 < count; i += 2)
            if (memcmp(hashes + BITCOIN_HASH_BYTES * i, hashes + BITCOIN_HASH_BYTES * (i + 1), BITCOIN_HASH_BYTES) == 0)
                repeated = true;
        if (count & 1) {
            memcpy(hashes + BITCOIN_HASH_BYTES * count, hashes + BITCOIN_HASH_BYTES * (count - 1), BITCOIN_HASH_BYTES);
            count++;
        }
        count /= 2;
        for (size_t i = 0; i < count; i++)
            double_sha256(hashes + BITCOIN_HASH_BYTES * i, hashes + 2 * BITCOIN_HASH_BYTES * i, 2 * BITCOIN_HASH_BYTES);
    }
    return repeated;
}

/* The height that begins the coinbase's script (BIP 34), -1 where there is none in its shortest form. */
static int64_t committed_height(int32_t version, const struct coinbase *coinbase)
{
    const uint8_t *script = coinbase->script;
    if (version < 2 || coinbase->script_length == 0)
        return -1;
    uint32_t length = script[0];
    if (length >= 0x51 && length <= 0x60)
        return length - 0x50;
    if (length == 0 || length > 4 || length >= coinbase->script_length)
        return -1;
    int64_t height = 0;
    for (uint32_t i = 0; i < length; i++)
        height |= (int64_t)script[1 + i] << (8 * i);
    /* A top byte of zero is needed only where the bit below it would be the sign. */
    if (script[length] & 0x80 || height <= 16)
        return -1;
    if (script[length] == 0 && !(script[length - 1] & 0x80))
        return -1;
    return height;
}

/* BIP 141. Decided by the bytes and the network alone, so that of all blocks of one hash only one is ever accepted. */
static enum bitcoin_fault check_witness(const struct columns *columns, const struct bitcoin_totals *totals,
                                        const struct coinbase *coinbase, bool active)
{
    if (!active || !coinbase->commitment)
        return totals->has_witness ? BITCOIN_UNEXPECTED_WITNESS : BITCOIN_SOUND;
    if (!coinbase->commitment_nonce)
        return BITCOIN_COMMITMENT_NONCE;
    memset(columns->witness_leaves, 0, BITCOIN_HASH_BYTES);
    merkle_root(columns->witness_leaves, totals->transactions);
    uint8_t pair[2 * BITCOIN_HASH_BYTES], commitment[BITCOIN_HASH_BYTES];
    memcpy(pair, columns->witness_leaves, BITCOIN_HASH_BYTES);
    memcpy(pair + BITCOIN_HASH_BYTES, coinbase->commitment_nonce, BITCOIN_HASH_BYTES);
    double_sha256(commitment, pair, sizeof pair);
    return memcmp(commitment, coinbase->commitment, sizeof commitment) == 0 ? BITCOIN_SOUND : BITCOIN_COMMITMENT;
}

static enum bitcoin_fault check_commitments(const struct bitcoin_block *block, const struct columns *columns,
                                            const struct coinbase *coinbase, uint32_t segwit_height)
{
    const struct bitcoin_totals *totals = &block->totals;
    bool repeated = merkle_root(columns->leaves, totals->transactions);
    if (memcmp(columns->leaves, block->data + 36, BITCOIN_HASH_BYTES) != 0)
        return BITCOIN_WRONG_ROOT;
    if (repeated)
        return BITCOIN_REPEATED;
    if (!totals->first_is_coinbase)
        return BITCOIN_NO_COINBASE;
    if (totals->coinbases > 1)
        return BITCOIN_SECOND_COINBASE;
    return check_witness(columns, totals, coinbase, segwit_height == 0 || block->height >= (int64_t)segwit_height);
}

/* ---- the columns ------------------------------------------------------------------------------------------------------- */

static inline uint8_t *advance(uint8_t **at, size_t length)
{
    uint8_t *place = *at;
    *at += length;
    return place;
}

size_t bitcoin_columns_length(const struct bitcoin_block *block)
{
    /* The same order as place_columns and ir.schemas. */
    const struct bitcoin_totals *totals = &block->totals;
    const size_t transactions = totals->transactions, inputs = totals->inputs, outputs = totals->outputs;
    size_t length = 32 + 32 + 8 + 4 + 4 + 32 + 4 + 4 + 4 + 4 + 4;
    length += 32 * transactions + 5 * 4 * transactions;
    length += 2 * 4 * (transactions + 1);
    length += (32 + 4 + 4) * inputs + 4 * (inputs + 1) + totals->input_script_bytes;
    length += 8 * outputs + 4 * (outputs + 1) + totals->output_script_bytes;
    if (totals->has_witness)
        length += 32 * transactions + 4 * (inputs + 1) + 4 * ((size_t)totals->witnesses + 1) + totals->witness_bytes;
    return length;
}

/* Says where each column of the tables below `block` begins; the first offset of each is written. Returns the end. */
static uint8_t *place_columns(struct columns *columns, const struct bitcoin_totals *totals, uint8_t *at)
{
    const size_t transactions = totals->transactions, inputs = totals->inputs, outputs = totals->outputs;
    memset(columns, 0, sizeof *columns);
    columns->limit = *totals;
    columns->transaction_id = advance(&at, 32 * transactions);
    if (totals->has_witness)
        columns->transaction_witness_id = advance(&at, 32 * transactions);
    columns->transaction_version = advance(&at, 4 * transactions);
    columns->transaction_lock_time = advance(&at, 4 * transactions);
    columns->transaction_size = advance(&at, 4 * transactions);
    columns->transaction_weight = advance(&at, 4 * transactions);
    columns->transaction_offset = advance(&at, 4 * transactions);
    columns->transaction_input = advance(&at, 4 * (transactions + 1));
    columns->transaction_output = advance(&at, 4 * (transactions + 1));
    columns->input_previous_id = advance(&at, 32 * inputs);
    columns->input_previous_index = advance(&at, 4 * inputs);
    columns->input_sequence = advance(&at, 4 * inputs);
    columns->input_script = advance(&at, 4 * (inputs + 1));
    columns->input_script_data = advance(&at, totals->input_script_bytes);
    if (totals->has_witness)
        columns->input_witness = advance(&at, 4 * (inputs + 1));
    columns->output_amount = advance(&at, 8 * outputs);
    columns->output_script = advance(&at, 4 * (outputs + 1));
    columns->output_script_data = advance(&at, totals->output_script_bytes);
    put32(columns->transaction_input, 0, 0);
    put32(columns->transaction_output, 0, 0);
    put32(columns->input_script, 0, 0);
    put32(columns->output_script, 0, 0);
    if (totals->has_witness) {
        columns->witness_item = advance(&at, 4 * ((size_t)totals->witnesses + 1));
        columns->witness_item_data = advance(&at, totals->witness_bytes);
        put32(columns->input_witness, 0, 0);
        put32(columns->witness_item, 0, 0);
    }
    return at;
}

/* The table `block`. Returns its end. */
static uint8_t *write_block(const struct bitcoin_block *block, uint8_t *at)
{
    put_reversed(advance(&at, 32), 0, block->hash);
    put_reversed(advance(&at, 32), 0, block->data + 4);
    memcpy(advance(&at, 4), block->data + 68, 4);
    put32(advance(&at, 4), 0, 0); /* The time has 64 bits in the IR. */
    put32(advance(&at, 4), 0, block->totals.transactions);
    memcpy(advance(&at, 4), block->data, 4);
    put_reversed(advance(&at, 32), 0, block->data + 36);
    memcpy(advance(&at, 4), block->data + 72, 4);
    memcpy(advance(&at, 4), block->data + 76, 4);
    put32(advance(&at, 4), 0, (uint32_t)block->length);
    put32(advance(&at, 4), 0, block->totals.stripped_bytes);
    put32(advance(&at, 4), 0, 3 * block->totals.stripped_bytes + (uint32_t)block->length);
    return at;
}

enum bitcoin_fault bitcoin_encode(struct bitcoin_block *block, uint32_t segwit_height, uint8_t *columns, size_t length)
{
    const struct bitcoin_totals *totals = &block->totals;
    if (length != bitcoin_columns_length(block))
        return BITCOIN_NO_MEMORY;
    struct columns places;
    place_columns(&places, totals, write_block(block, columns));
    size_t leaves = (size_t)totals->transactions + 1;
    uint8_t *scratch = malloc(BITCOIN_HASH_BYTES * leaves * (totals->has_witness ? 2 : 1));
    if (!scratch)
        return BITCOIN_NO_MEMORY;
    places.leaves = scratch;
    if (totals->has_witness)
        places.witness_leaves = scratch + BITCOIN_HASH_BYTES * leaves;
    struct cursor cursor = {.data = block->data, .end = block->length};
    struct bitcoin_totals written;
    struct coinbase coinbase;
    read_block(&cursor, &written, &places, &coinbase);
    if (cursor.fault != BITCOIN_SOUND || memcmp(&written, totals, sizeof written) != 0) {
        cursor.fault = BITCOIN_CHANGED;
    } else {
        block->height = committed_height((int32_t)get32(block->data), &coinbase);
        block->transaction_ids = places.transaction_id;
        cursor.fault = check_commitments(block, &places, &coinbase, segwit_height);
    }
    free(scratch);
    return cursor.fault;
}
