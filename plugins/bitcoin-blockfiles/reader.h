/* reader.h - the blocks folder as a whole: which files there are, how far each was read, and where to go on.
 *
 * Files are read in the order of their numbers. One pass looks at every file that changed since the last one and reads what
 * was added, in whichever file it was: a node only appends, but not always to the highest file (it keeps two open files while
 * it validates a UTXO snapshot), and a tool that copies a folder may add to any.
 */
#ifndef READER_H
#define READER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host.h"
#include "position.h"
#include "record.h"
#include "settings.h"
#include "xor_key.h"

/* What stat says of a file; equal stamps mean that nothing was written in between. */
struct stamp {
    uint64_t size;
    uint64_t device;
    uint64_t inode;
    int64_t changed;  /* Nanoseconds of the clock of the file system: of any change, */
    int64_t modified; /* and of the last writing. */
};

struct block_file {
    struct cursor cursor;
    struct stamp stamp;     /* As of the last look. */
    int64_t looked_at;      /* Nanoseconds since the epoch, before that look. */
    uint64_t written;       /* Where its written part ended then. */
    int64_t suspect_since;  /* When it was first seen that something was written below that; 0: nothing was. */
    int64_t read_again_at;  /* When it was last read again for that. */
    uint64_t told_at;       /* Offset of the last damage that was reported, plus 1. */
    uint64_t gap_at;        /* Where the last gap begins, and the raw bytes there: a node that crashed may fill it later. */
    uint32_t gaps;          /* How many were reported. */
    uint8_t gap_raw[RECORD_HEADER_BYTES];
    bool has_gap;
    bool listed;            /* Seen in the folder during this pass. */
    bool touched;           /* Looked at, or known from the position that was resumed. */
    bool take_as_read;      /* The resumed position says: read to its end. */
    bool comparable;        /* stamp and written belong together: nobody wrote while they were taken. */
    bool told_suspect;      /* That something was written below; reported. */
    bool look_again;        /* Something is pending that no change of the file announces. */
    bool failed;            /* Could not be read; reported. */
};

struct reader {
    struct settings settings;
    struct xor_key key;
    struct block_file *files; /* In ascending order of number. */
    size_t count;
    size_t capacity;
    uint32_t read_below;      /* Files with a lower number that the next listing finds were read before this run. */
    uint64_t claim;           /* Height to claim for the next block, or SUPERVM_HEIGHT_UNKNOWN. */
    uint8_t *scratch;
    atomic_bool stopping;     /* Set by the thread that stops the plugin. */

    struct position position; /* As it is to be said with the next block, except for the cursor of its own file: */
    size_t current;           /* index of that one in position.cursors, or SIZE_MAX. */

    bool folder_failed;       /* Reported. */
    unsigned failures_told;   /* Unreadable files reported one by one. */
    unsigned failures_silent; /* Those beyond, since the last summary. */
    uint64_t blocks;          /* Published in this run. */
    uint64_t bytes;
};

enum pass_end {
    PASS_DONE,
    PASS_STOPPED,
    PASS_REFUSED,    /* The host refuses blocks for good; reported. */
    PASS_UNREADABLE, /* Inside block_file.c only: this file cannot be read; errno says why. */
};

/* Checks the folder, its key and its network, and takes up the position that the host kept. FAILURE_NONE, or a failure that
 * was reported at ERROR; nothing is left to close then. */
enum failure reader_open(struct reader *reader, const struct settings *settings);

/* Reads everything that is new. *progress: a block was published. *unsettled: look again in READER_SETTLE_MS. */
enum pass_end reader_pass(struct reader *reader, bool *progress, bool *unsettled);

void reader_close(struct reader *reader);

/* A node writes a record within milliseconds; a file that nobody wrote to for so long is taken as written. */
#define READER_SETTLE_MS 100

/* ---- block_file.c ------------------------------------------------------------------------------------------------------ */

/* Room for "blk" + ten digits + ".dat". */
#define FILE_NAME_BYTES 24
void block_file_name(char name[FILE_NAME_BYTES], uint32_t number);

/* Reads what is new in one file of the folder that is open as folder_fd. */
enum pass_end block_file_read(struct reader *reader, struct block_file *file, int folder_fd, bool highest, bool *unsettled);

/* Opens a file and checks that the record before its cursor is what it was. RECORD_COMPLETE: it is, or none was read yet. */
enum record_state block_file_check(struct reader *reader, const struct block_file *file, int folder_fd);

/* ---- reader.c, for block_file.c ---------------------------------------------------------------------------------------- */

/* Makes reader->position ready for blocks of this file. */
void reader_prepare_position(struct reader *reader, const struct block_file *file);

#endif
