/* Bitcoin blocks: parse, verify and encode, in two passes over the raw bytes. Knows nothing of Python.
 *
 * The first pass checks the encoding and counts, so that the IR can be allocated once and at its exact size; the second fills it
 * and computes the transaction ids. Both are the same function, so they cannot disagree. A count that the block claims is never
 * believed beyond what the remaining bytes can hold. The second pass checks its own bounds against the first: bytes that change
 * in between (the caller promises that they do not) give a refusal, never a write out of bounds.
 */
#ifndef SUPERVM_IR_BITCOIN_H
#define SUPERVM_IR_BITCOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITCOIN_HASH_BYTES 32
#define BITCOIN_HEADER_BYTES 80
#define BITCOIN_MAX_WEIGHT 4000000

enum bitcoin_fault {
    BITCOIN_SOUND,
    BITCOIN_NO_HEADER,
    BITCOIN_ENDS_EARLY,
    BITCOIN_NOT_CANONICAL,
    BITCOIN_TOO_MANY,
    BITCOIN_NO_TRANSACTION,
    BITCOIN_NO_INPUT,
    BITCOIN_UNKNOWN_DATA,
    BITCOIN_NO_WITNESS,
    BITCOIN_NEGATIVE_AMOUNT,
    BITCOIN_TRAILING,
    BITCOIN_TOO_LARGE,
    BITCOIN_CHANGED,
    BITCOIN_HIGH_TARGET,
    BITCOIN_HIGH_HASH,
    BITCOIN_WRONG_ROOT,
    BITCOIN_REPEATED,
    BITCOIN_NO_COINBASE,
    BITCOIN_SECOND_COINBASE,
    BITCOIN_UNEXPECTED_WITNESS,
    BITCOIN_COMMITMENT_NONCE,
    BITCOIN_COMMITMENT,
    BITCOIN_NO_MEMORY,
};

/* What was seen so far: after the first pass the sizes of the columns, during the second the next place in them. */
struct bitcoin_totals {
    uint32_t transactions;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t witnesses;
    uint32_t input_script_bytes;
    uint32_t output_script_bytes;
    uint32_t witness_bytes;
    uint32_t stripped_bytes;
    uint32_t coinbases;
    uint32_t first_is_coinbase; /* 0 or 1, as the next: all members are alike, so that two of these compare as bytes. */
    uint32_t has_witness;
};

struct bitcoin_block {
    const uint8_t *data;
    size_t length;
    const uint8_t *pow_limit; /* The network's highest target, as 32 little-endian bytes. */
    /* Set by bitcoin_read. */
    struct bitcoin_totals totals;
    size_t at; /* The byte where a fault of the encoding was found. */
    uint8_t hash[BITCOIN_HASH_BYTES];
    uint8_t target[BITCOIN_HASH_BYTES]; /* Little-endian. */
    /* Set by bitcoin_encode. */
    int64_t height;                 /* BIP 34, or -1. */
    const uint8_t *transaction_ids; /* Inside the columns, in display order. */
};

/* The first pass: encoding, target, proof of work, in this order. The caller has set the first three members. The hash is set
 * after every answer but BITCOIN_NO_HEADER. */
enum bitcoin_fault bitcoin_read(struct bitcoin_block *block);

/* Bytes of all columns behind the directory; needs BITCOIN_SOUND from bitcoin_read, as does bitcoin_encode. */
size_t bitcoin_columns_length(const struct bitcoin_block *block);

/* The second pass: fills length bytes of columns, in the order of ir.schemas, and checks Merkle root, repeated transactions,
 * coinbase and witness. segwit_height: the first height at which witness data may exist; 0: at every height, also where the
 * block does not say its own. After an answer other than BITCOIN_SOUND the columns hold nothing that can be relied on. */
enum bitcoin_fault bitcoin_encode(struct bitcoin_block *block, uint32_t segwit_height, uint8_t *columns, size_t length);

#endif
