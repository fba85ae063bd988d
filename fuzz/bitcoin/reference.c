/* Invariant: as in reference.h. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "reference.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

void hash_twice(const uint8_t *bytes, size_t length, uint8_t *digest)
{
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, bytes, length);
    SHA256_Final(digest, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, digest, 32);
    SHA256_Final(digest, &context);
}

/* ---- the bytes of a block ---------------------------------------------------------------------------------------------- */

struct text {
    const uint8_t *bytes;
    size_t length, at;
    bool bad;
};

static void skip(struct text *text, uint64_t count)
{
    if (count > text->length - text->at)
        text->bad = true;
    else
        text->at += count;
}

static uint64_t number(struct text *text, unsigned bytes)
{
    size_t at = text->at;
    skip(text, bytes);
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && !text->bad; i++)
        value |= (uint64_t)text->bytes[at + i] << (8 * i);
    return value;
}

static uint64_t compact(struct text *text)
{
    uint64_t first = number(text, 1);
    if (first < 0xfd)
        return first;
    uint64_t value = number(text, first == 0xfd ? 2 : first == 0xfe ? 4 : 8);
    if (value < 0xfd || (first > 0xfd && value < 0x10000) || (first > 0xfe && value < 0x100000000))
        text->bad = true; /* Not the shortest form. */
    return text->bad ? 0 : value;
}

static void read_part(struct text *text, struct part *part)
{
    *part = (struct part){.begin = text->at};
    skip(text, 4);
    part->body = text->at;
    if (!text->bad && text->length - text->at >= 2 && text->bytes[text->at] == 0 && text->bytes[text->at + 1] == 1) {
        part->marked = true;
        skip(text, 2);
        part->body = text->at;
    }
    uint64_t inputs = compact(text);
    if (inputs == 0)
        text->bad = true;
    for (uint64_t i = 0; i < inputs && !text->bad; i++) {
        skip(text, 36);
        skip(text, compact(text));
        skip(text, 4);
    }
    part->output_count = compact(text);
    for (uint64_t i = 0; i < part->output_count && !text->bad; i++) {
        if (number(text, 8) >> 63)
            text->bad = true;
        if (i == 0)
            part->first_output_script = text->at;
        uint64_t length = compact(text);
        size_t at = text->at;
        skip(text, length);
        if (!text->bad && length >= 38 && memcmp(text->bytes + at, "\x6a\x24\xaa\x21\xa9\xed", 6) == 0)
            part->commitment = at + 6;
    }
    part->body_end = text->at;
    bool any = false;
    for (uint64_t i = 0; i < inputs && part->marked && !text->bad; i++) {
        uint64_t items = compact(text);
        any |= items > 0;
        for (uint64_t j = 0; j < items && !text->bad; j++) {
            uint64_t length = compact(text);
            if (i == 0 && items == 1 && length == 32)
                part->nonce = text->at;
            skip(text, length);
        }
    }
    if (part->marked && !any)
        text->bad = true;
    skip(text, 4);
    part->end = text->at;
}

bool split_block(const uint8_t *bytes, size_t length, struct parts *parts)
{
    struct text text = {.bytes = bytes, .length = length};
    skip(&text, 80);
    uint64_t count = compact(&text);
    if (text.bad || count == 0 || count > MOST_TRANSACTIONS)
        return false;
    parts->count = count;
    for (uint64_t i = 0; i < count && !text.bad; i++)
        read_part(&text, &parts->transactions[i]);
    return !text.bad && text.at == length;
}

void id_of(const uint8_t *bytes, const struct part *part, uint8_t *id)
{
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, bytes + part->begin, 4);
    SHA256_Update(&context, bytes + part->body, part->body_end - part->body);
    SHA256_Update(&context, bytes + part->end - 4, 4);
    SHA256_Final(id, &context);
    SHA256_Init(&context);
    SHA256_Update(&context, id, 32);
    SHA256_Final(id, &context);
}

/* The root of a range of a level, as its definition says it: recursive, and with the last of an odd level taken twice. */
void root_of(const uint8_t *bytes, const struct parts *parts, bool witness, uint8_t *root, bool *repeated)
{
    static uint8_t level[MOST_TRANSACTIONS][32];
    size_t count = parts->count;
    *repeated = false;
    for (size_t i = 0; i < count; i++) {
        const struct part *part = &parts->transactions[i];
        if (witness && i == 0)
            memset(level[0], 0, 32);
        else if (witness)
            hash_twice(bytes + part->begin, part->end - part->begin, level[i]);
        else
            id_of(bytes, part, level[i]);
    }
    while (count > 1) {
        for (size_t i = 0; i < (count + 1) / 2; i++) {
            uint8_t pair[64];
            size_t right = 2 * i + 1 < count ? 2 * i + 1 : 2 * i;
            *repeated |= right != 2 * i && memcmp(level[2 * i], level[right], 32) == 0;
            memcpy(pair, level[2 * i], 32);
            memcpy(pair + 32, level[right], 32);
            hash_twice(pair, sizeof pair, level[i]);
        }
        count = (count + 1) / 2;
    }
    memcpy(root, level[0], 32);
}

void commitment_of(const uint8_t *bytes, const struct parts *parts, uint8_t *commitment)
{
    uint8_t pair[64];
    bool repeated;
    root_of(bytes, parts, true, pair, &repeated);
    memcpy(pair + 32, bytes + parts->transactions[0].nonce, 32);
    hash_twice(pair, sizeof pair, commitment);
}

static bool is_coinbase(const uint8_t *bytes, const struct part *part)
{
    static const uint8_t outpoint[36] = {[32] = 0xff, 0xff, 0xff, 0xff};
    return bytes[part->body] == 1 && memcmp(bytes + part->body + 1, outpoint, sizeof outpoint) == 0;
}

/* Whether the coinbase is the first transaction and the only one. */
static bool coinbase_is_right(const uint8_t *bytes, const struct parts *parts)
{
    size_t count = 0;
    for (size_t i = 0; i < parts->count; i++)
        count += is_coinbase(bytes, &parts->transactions[i]);
    return count == 1 && is_coinbase(bytes, &parts->transactions[0]);
}

/* ---- the columns ------------------------------------------------------------------------------------------------------- */

struct columns {
    const uint8_t *at;
    size_t left;
};

static const uint8_t *column(struct columns *columns, size_t width, size_t rows)
{
    const uint8_t *at = columns->at;
    REQUIRE(width * rows <= columns->left);
    columns->at += width * rows;
    columns->left -= width * rows;
    return at;
}

static uint32_t cell(const uint8_t *column, size_t row)
{
    column += 4 * row;
    return column[0] | (uint32_t)column[1] << 8 | (uint32_t)column[2] << 16 | (uint32_t)column[3] << 24;
}

/* Offsets, which have to begin at 0 and never fall. */
static const uint8_t *offsets(struct columns *columns, size_t rows, size_t total)
{
    const uint8_t *found = column(columns, 4, rows + 1);
    REQUIRE(cell(found, 0) == 0 && cell(found, rows) == total);
    for (size_t i = 0; i < rows; i++)
        REQUIRE(cell(found, i) <= cell(found, i + 1));
    return found;
}

struct output {
    uint8_t *bytes;
    size_t length, limit;
};

static void put(struct output *output, const uint8_t *bytes, size_t length)
{
    REQUIRE(length <= output->limit - output->length);
    if (length)
        memcpy(output->bytes + output->length, bytes, length);
    output->length += length;
}

static void put_turned(struct output *output, const uint8_t *id)
{
    for (int i = 31; i >= 0; i--)
        put(output, id + i, 1);
}

static void put_compact(struct output *output, uint64_t value)
{
    uint8_t bytes[9] = {(uint8_t)value};
    unsigned count = value < 0xfd ? 0 : value < 0x10000 ? 2 : value < 0x100000000 ? 4 : 8;
    if (count)
        bytes[0] = count == 2 ? 0xfd : count == 4 ? 0xfe : 0xff;
    for (unsigned i = 0; i < count; i++)
        bytes[1 + i] = (uint8_t)(value >> (8 * i));
    put(output, bytes, 1 + count);
}

static void put_text(struct output *output, const uint8_t *ends, const uint8_t *data, size_t row)
{
    uint32_t begin = cell(ends, row), end = cell(ends, row + 1);
    put_compact(output, end - begin);
    put(output, data + begin, end - begin);
}

void check_columns(const struct bitcoin_block *block, const uint8_t *bytes, size_t size, uint32_t segwit_height)
{
    const struct bitcoin_totals *totals = &block->totals;
    const size_t transactions = totals->transactions, inputs = totals->inputs, outputs = totals->outputs;
    struct columns columns = {bytes, size};
    uint8_t hash[32], zeros[4] = {0};
    struct output made = {.bytes = malloc(block->length), .limit = block->length};
    REQUIRE(made.bytes);

    /* The table `block` gives the header. */
    const uint8_t *id = column(&columns, 32, 1), *parent = column(&columns, 32, 1), *time = column(&columns, 8, 1);
    const uint8_t *count = column(&columns, 4, 1), *version = column(&columns, 4, 1), *root = column(&columns, 32, 1);
    const uint8_t *bits = column(&columns, 4, 1), *nonce = column(&columns, 4, 1), *sizes = column(&columns, 4, 3);
    put(&made, version, 4);
    put_turned(&made, parent);
    put_turned(&made, root);
    put(&made, time, 4);
    put(&made, bits, 4);
    put(&made, nonce, 4);
    hash_twice(made.bytes, made.length, hash);
    for (int i = 0; i < 32; i++)
        REQUIRE(id[i] == hash[31 - i]);
    REQUIRE(memcmp(time + 4, zeros, 4) == 0 && cell(count, 0) == transactions);

    const uint8_t *ids = column(&columns, 32, transactions);
    const uint8_t *witness_ids = totals->has_witness ? column(&columns, 32, transactions) : ids;
    const uint8_t *versions = column(&columns, 4, transactions), *lock_times = column(&columns, 4, transactions);
    const uint8_t *lengths = column(&columns, 4, transactions), *weights = column(&columns, 4, transactions);
    const uint8_t *places = column(&columns, 4, transactions);
    const uint8_t *input_rows = offsets(&columns, transactions, inputs), *output_rows = offsets(&columns, transactions, outputs);
    const uint8_t *previous = column(&columns, 32, inputs), *indices = column(&columns, 4, inputs);
    const uint8_t *sequences = column(&columns, 4, inputs);
    const uint8_t *input_ends = offsets(&columns, inputs, totals->input_script_bytes);
    const uint8_t *input_scripts = column(&columns, 1, totals->input_script_bytes);
    const uint8_t *stacks = totals->has_witness ? offsets(&columns, inputs, totals->witnesses) : NULL;
    const uint8_t *amounts = column(&columns, 8, outputs);
    const uint8_t *output_ends = offsets(&columns, outputs, totals->output_script_bytes);
    const uint8_t *output_scripts = column(&columns, 1, totals->output_script_bytes);
    const uint8_t *item_ends = totals->has_witness ? offsets(&columns, totals->witnesses, totals->witness_bytes) : NULL;
    const uint8_t *items = totals->has_witness ? column(&columns, 1, totals->witness_bytes) : NULL;
    REQUIRE(columns.left == 0 && block->transaction_ids == ids);

    put_compact(&made, transactions);
    size_t stripped_total = made.length;
    for (size_t row = 0; row < transactions; row++) {
        uint32_t first = cell(input_rows, row), last = cell(input_rows, row + 1);
        struct part part = {.begin = made.length};
        REQUIRE(cell(places, row) == made.length);
        put(&made, versions + 4 * row, 4);
        part.marked = stacks && cell(stacks, first) != cell(stacks, last);
        if (part.marked)
            put(&made, (const uint8_t *)"\0\1", 2);
        part.body = made.length;
        put_compact(&made, last - first);
        for (uint32_t i = first; i < last; i++) {
            put_turned(&made, previous + 32 * (size_t)i);
            put(&made, indices + 4 * (size_t)i, 4);
            put_text(&made, input_ends, input_scripts, i);
            put(&made, sequences + 4 * (size_t)i, 4);
        }
        put_compact(&made, cell(output_rows, row + 1) - cell(output_rows, row));
        for (uint32_t i = cell(output_rows, row); i < cell(output_rows, row + 1); i++) {
            put(&made, amounts + 8 * (size_t)i, 8);
            put_text(&made, output_ends, output_scripts, i);
        }
        part.body_end = made.length;
        for (uint32_t i = first; i < last && part.marked; i++) {
            put_compact(&made, cell(stacks, i + 1) - cell(stacks, i));
            for (uint32_t j = cell(stacks, i); j < cell(stacks, i + 1); j++)
                put_text(&made, item_ends, items, j);
        }
        put(&made, lock_times + 4 * row, 4);
        part.end = made.length;
        size_t stripped = part.body_end - part.body + 8, whole = part.end - part.begin;
        stripped_total += stripped;
        REQUIRE(cell(lengths, row) == whole && cell(weights, row) == 3 * stripped + whole);
        id_of(made.bytes, &part, hash);
        for (int i = 0; i < 32; i++)
            REQUIRE(ids[32 * row + i] == hash[31 - i]);
        hash_twice(made.bytes + part.begin, whole, hash);
        for (int i = 0; i < 32; i++)
            REQUIRE(witness_ids[32 * row + i] == hash[31 - i]);
    }
    REQUIRE(made.length == block->length && memcmp(made.bytes, block->data, made.length) == 0);
    REQUIRE(cell(sizes, 0) == made.length && cell(sizes, 1) == stripped_total);
    REQUIRE(cell(sizes, 2) == 3 * stripped_total + made.length && cell(sizes, 2) <= BITCOIN_MAX_WEIGHT);

    /* What it commits to. */
    static struct parts parts;
    if (split_block(block->data, block->length, &parts)) {
        bool repeated;
        root_of(block->data, &parts, false, hash, &repeated);
        REQUIRE(memcmp(hash, block->data + 36, 32) == 0 && !repeated && coinbase_is_right(block->data, &parts));
        const struct part *coinbase = &parts.transactions[0];
        if (totals->has_witness) {
            REQUIRE(coinbase->commitment && coinbase->nonce);
            commitment_of(block->data, &parts, hash);
            REQUIRE(memcmp(hash, block->data + coinbase->commitment, 32) == 0);
            REQUIRE(segwit_height == 0 || block->height >= (int64_t)segwit_height);
        }
    } else {
        REQUIRE(transactions > MOST_TRANSACTIONS);
    }
    free(made.bytes);
}

void check_refusal(const struct bitcoin_block *block, enum bitcoin_fault fault)
{
    static struct parts parts;
    bool whole = split_block(block->data, block->length, &parts), repeated = false;
    uint8_t hash[32];
    if (fault >= BITCOIN_HIGH_TARGET) {
        if (!whole)
            return; /* The encoding is right, so there are too many transactions for this program. */
        root_of(block->data, &parts, false, hash, &repeated);
    }
    bool root_is_right = whole && fault >= BITCOIN_HIGH_TARGET && memcmp(hash, block->data + 36, 32) == 0;
    const struct part *coinbase = &parts.transactions[0];
    switch (fault) {
    case BITCOIN_NO_HEADER: REQUIRE(block->length < 80); break;
    case BITCOIN_TOO_LARGE: REQUIRE(4 * block->length > BITCOIN_MAX_WEIGHT); break;
    case BITCOIN_HIGH_TARGET: break;
    case BITCOIN_HIGH_HASH:
        hash_twice(block->data, 80, hash);
        REQUIRE(memcmp(hash, block->hash, 32) == 0);
        for (int i = 31; i >= 0 && hash[i] <= block->target[i]; i--)
            REQUIRE(hash[i] == block->target[i] && i > 0);
        break;
    case BITCOIN_WRONG_ROOT: REQUIRE(!root_is_right); break;
    case BITCOIN_REPEATED: REQUIRE(root_is_right && repeated); break;
    case BITCOIN_NO_COINBASE: REQUIRE(root_is_right && !is_coinbase(block->data, coinbase)); break;
    case BITCOIN_SECOND_COINBASE: REQUIRE(root_is_right && !coinbase_is_right(block->data, &parts)); break;
    case BITCOIN_UNEXPECTED_WITNESS: REQUIRE(root_is_right && block->totals.has_witness); break;
    case BITCOIN_COMMITMENT_NONCE: REQUIRE(root_is_right && coinbase->commitment && !coinbase->nonce); break;
    case BITCOIN_COMMITMENT:
        commitment_of(block->data, &parts, hash);
        REQUIRE(root_is_right && memcmp(hash, block->data + coinbase->commitment, 32) != 0);
        break;
    default: REQUIRE(!whole); break; /* A fault of the encoding. */
    }
}
