/* Invariant: nothing here shares a line with the parser. A plain reading of a block, to judge the parser by. */
#ifndef FUZZ_BITCOIN_REFERENCE_H
#define FUZZ_BITCOIN_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bitcoin.h"

#define MOST_TRANSACTIONS 256

struct part {
    size_t begin, end;           /* The whole transaction. */
    size_t body, body_end;       /* Counts, inputs, outputs. */
    size_t first_output_script;  /* Its length byte. */
    uint64_t output_count;
    size_t commitment;           /* The 32 bytes of its last commitment output; 0: it has none. */
    size_t nonce;                /* The one item of 32 bytes of its first input's witness; 0: it is not so. */
    bool marked;
};

struct parts {
    size_t count;
    struct part transactions[MOST_TRANSACTIONS];
};

/* Where the transactions lie; false where the bytes are no such list, or one too long for this program. */
bool split_block(const uint8_t *bytes, size_t length, struct parts *parts);

void hash_twice(const uint8_t *bytes, size_t length, uint8_t *digest);
void id_of(const uint8_t *bytes, const struct part *part, uint8_t *id);
/* The root of the ids, or of the witness ids with zeros for the coinbase's. *repeated: see CVE-2012-2459. */
void root_of(const uint8_t *bytes, const struct parts *parts, bool witness, uint8_t *root, bool *repeated);
void commitment_of(const uint8_t *bytes, const struct parts *parts, uint8_t *commitment);

/* The columns must give back the block. */
void check_columns(const struct bitcoin_block *block, const uint8_t *columns, size_t size, uint32_t segwit_height);
/* The fault must be one that the bytes have. */
void check_refusal(const struct bitcoin_block *block, enum bitcoin_fault fault);

#define REQUIRE(truth)                                                                                                          \
    do {                                                                                                                        \
        if (!(truth))                                                                                                           \
            require_failed(#truth, __FILE__, __LINE__);                                                                         \
    } while (0)
_Noreturn void require_failed(const char *what, const char *file, int line);

#endif
