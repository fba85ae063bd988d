/* position.h - the place to go on from, as the host stores it beside the blocks. Opaque to the host.
 *
 * A node may have more than one unfinished file (it keeps two while it validates a UTXO snapshot), so one file and one offset
 * do not say where to go on. A position holds a cursor for the highest file that was looked at and for each lower file of
 * which something was left unread; lower files without a cursor were read to their end.
 */
#ifndef POSITION_H
#define POSITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
    uint32_t file;        /* The number in the file's name. */
    uint32_t length;      /* Payload bytes of the record that ends at offset; 0: none was read yet. */
    uint64_t offset;      /* The first byte that was not read yet. */
    uint64_t fingerprint; /* Of that record: tells whether the file is still the one that was read. */
};

#define POSITION_MAX_CURSORS 8
#define POSITION_HEADER_BYTES 2
#define POSITION_CURSOR_BYTES 24
#define POSITION_MAX_BYTES (POSITION_HEADER_BYTES + POSITION_MAX_CURSORS * POSITION_CURSOR_BYTES)

struct position {
    size_t count;
    /* There were more unfinished files than cursors: every file above the lowest cursor is to be read again. */
    bool overflow;
    struct cursor cursors[POSITION_MAX_CURSORS]; /* In ascending order of file. */
};

/* Little-endian bytes: format version, flags, then the cursors. Returns how many bytes of out were used. */
size_t position_encode(const struct position *position, uint8_t out[POSITION_MAX_BYTES]);

/* false: these are not bytes that position_encode gave. */
bool position_decode(struct position *position, const uint8_t *bytes, size_t length);

#endif
