/* record.h - the bytes of one open block file: where its written part ends, and where records lie in it.
 *
 * A record is the network's magic, the block's length (four bytes, little-endian), the block. A node
 *   - preallocates: it extends the file by a chunk of raw zeros (16 MiB; 16 KiB with -fastprune) and fills it later. These
 *     zeros are not obscured by the XOR key, so only raw bytes tell what was written;
 *   - writes each record from its first byte to its last, in several steps. A reader may find any prefix of it.
 *
 * So the written part is taken to end behind the last raw byte that is not zero, looked for from the end of the file. That
 * rule needs no exception for a key or a block whose bytes happen to give zeros on the disk, except at one place: a last
 * record may itself end in zeros (without a key most do, by the four bytes of a lock time of 0; a coinbase-only block by 36).
 * record_look says how that is resolved.
 *
 * Files are read with pread and never mapped: a node truncates them, and a page beyond the end of a mapped file is a SIGBUS.
 */
#ifndef RECORD_H
#define RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "settings.h"
#include "xor_key.h"

#define RECORD_HEADER_BYTES 8
#define RECORD_MIN_BLOCK 80      /* A block header. */
#define RECORD_MAX_BLOCK 4000000 /* The consensus limit of a serialised block. */

/* The longest run of raw zeros at the end of a last record that is taken for part of the block. */
#define RECORD_MAX_ZERO_TAIL 64

#define SCRATCH_BYTES (1u << 20)

struct record_file {
    int fd;
    uint64_t size;             /* Of the file when it was opened; bytes behind it are left for the next look. */
    uint64_t written;          /* Where the written part ends; set by record_find_written_end. */
    const struct xor_key *key;
    const uint8_t *magic;
    uint8_t *scratch;          /* SCRATCH_BYTES, for whoever runs at the moment. */
    const atomic_bool *stopping;
    bool growing;              /* A node may be about to write on. */
    bool quiet;                /* Nobody wrote for a while. */
};

enum record_state {
    RECORD_COMPLETE,
    /* Complete, unless its last bytes, zero now, are being written at this moment: look again shortly. */
    RECORD_UNSETTLED,
    /* It begins here and is not all there. */
    RECORD_INCOMPLETE,
    /* What lies here is not the beginning of a record. */
    RECORD_NONE,
    RECORD_FAILED,  /* Reading failed; errno says why. */
    RECORD_STOPPED, /* The plugin is being stopped. */
};

/* Reads exactly count bytes, less only at the end of the file. -1: errno says why. */
int64_t record_read(int fd, uint64_t offset, uint8_t *out, size_t count);

/* Sets file->written, at least `from`. RECORD_COMPLETE, _FAILED or _STOPPED. */
enum record_state record_find_written_end(struct record_file *file, uint64_t from);

/* What begins at offset, which is below file->written. *length: of the block, for the first three answers (0: not known). */
enum record_state record_look(const struct record_file *file, uint64_t offset, uint32_t *length);

/* The first record at or behind from that is there as a whole, whatever lies before it. RECORD_COMPLETE, _NONE, _FAILED or
 * _STOPPED. */
enum record_state record_search(const struct record_file *file, uint64_t from, uint64_t *found);

/* A number that tells one block of this place from another: over its length, its first 80 and its last 64 raw bytes. The
 * first hold the block's header, and the last are those that can still be missing when a record was taken for complete. */
uint64_t record_fingerprint(const uint8_t *first, const uint8_t *last, uint32_t length);

/* Whether the record of this length that ended at offset is still the same. RECORD_COMPLETE: yes; RECORD_NONE: no. */
enum record_state record_verify(const struct record_file *file, uint64_t offset, uint32_t length, uint64_t fingerprint);

#endif
