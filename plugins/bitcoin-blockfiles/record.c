#define _GNU_SOURCE
#include "record.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What every preallocated size is a multiple of. */
#define SMALLEST_CHUNK 16384

int64_t record_read(int fd, uint64_t offset, uint8_t *out, size_t count)
{
    size_t done = 0;
    while (done < count) {
        ssize_t now = pread(fd, out + done, count - done, (off_t)(offset + done));
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return -1;
        if (now == 0)
            break;
        done += (size_t)now;
    }
    return (int64_t)done;
}

static size_t length_without_zeros(const uint8_t *bytes, size_t count)
{
    uint64_t word;
    while (count >= sizeof word) {
        memcpy(&word, bytes + count - sizeof word, sizeof word);
        if (word != 0)
            break;
        count -= sizeof word;
    }
    while (count > 0 && bytes[count - 1] == 0)
        count--;
    return count;
}

enum record_state record_find_written_end(struct record_file *file, uint64_t from)
{
    uint64_t end = file->size;
    /* A small first step: a file without preallocated space ends in its last record. */
    size_t step = 4096;
    while (end > from) {
        if (atomic_load_explicit(file->stopping, memory_order_relaxed))
            return RECORD_STOPPED;
        host_beat();
        size_t count = end - from < step ? (size_t)(end - from) : step;
        int64_t got = record_read(file->fd, end - count, file->scratch, count);
        if (got < 0)
            return RECORD_FAILED;
        size_t used = length_without_zeros(file->scratch, (size_t)got);
        if (used > 0) {
            file->written = end - count + used;
            return RECORD_COMPLETE;
        }
        end -= count;
        step = SCRATCH_BYTES;
    }
    file->written = from;
    return RECORD_COMPLETE;
}

static uint32_t read_length(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Whether the record with this length at offset is all there. */
static enum record_state judge(const struct record_file *file, uint64_t offset, uint32_t length)
{
    uint64_t end = offset + RECORD_HEADER_BYTES + length;
    if (end <= file->written)
        return RECORD_COMPLETE;
    if (end > file->size)
        return RECORD_INCOMPLETE;
    /* Its last bytes are raw zeros and nothing was written behind it. A file that ends with it was either written exactly so
     * far or cut to its written part, unless its size is one to which a node may have just preallocated. */
    if (end == file->size && !(file->growing && file->size % SMALLEST_CHUNK == 0))
        return RECORD_COMPLETE;
    /* Zeros of the block, or bytes that are not written yet? Long runs: the latter. A block that really ends in one is given
     * when anything follows it. Short runs: the former, once nobody writes. A wrong guess, a writer halted for long within
     * the last bytes of a block, is found out by the fingerprint, and the file read again. */
    if (end - file->written > RECORD_MAX_ZERO_TAIL)
        return RECORD_INCOMPLETE;
    return file->quiet ? RECORD_COMPLETE : RECORD_UNSETTLED;
}

enum record_state record_look(const struct record_file *file, uint64_t offset, uint32_t *length)
{
    uint8_t header[RECORD_HEADER_BYTES];
    /* Of a header that is not all written, what is there must look like one. */
    size_t known = file->written - offset < sizeof header ? (size_t)(file->written - offset) : sizeof header;
    int64_t got = record_read(file->fd, offset, header, known);
    if (got < 0)
        return RECORD_FAILED;
    known = (size_t)got;
    xor_key_apply(file->key, offset, header, known);
    *length = 0;
    if (memcmp(header, file->magic, known < MAGIC_BYTES ? known : MAGIC_BYTES) != 0)
        return RECORD_NONE;
    if (known < sizeof header)
        return RECORD_INCOMPLETE;
    *length = read_length(header + MAGIC_BYTES);
    if (*length < RECORD_MIN_BLOCK || *length > RECORD_MAX_BLOCK)
        return RECORD_NONE;
    return judge(file, offset, *length);
}

enum record_state record_search(const struct record_file *file, uint64_t from, uint64_t *found)
{
    uint64_t at = from;
    while (at + RECORD_HEADER_BYTES + RECORD_MIN_BLOCK <= file->size && at + RECORD_HEADER_BYTES <= file->written) {
        if (atomic_load_explicit(file->stopping, memory_order_relaxed))
            return RECORD_STOPPED;
        host_beat();
        uint64_t left = file->written - at;
        int64_t got = record_read(file->fd, at, file->scratch, left < SCRATCH_BYTES ? (size_t)left : SCRATCH_BYTES);
        if (got < 0)
            return RECORD_FAILED;
        if (got < RECORD_HEADER_BYTES)
            return RECORD_NONE;
        size_t count = (size_t)got;
        xor_key_apply(file->key, at, file->scratch, count);
        /* A header that the end of this piece cuts is looked at in the next one. */
        size_t begins = count - (RECORD_HEADER_BYTES - 1), next = 0;
        while (next < begins) {
            uint8_t *candidate = memmem(file->scratch + next, begins + MAGIC_BYTES - 1 - next, file->magic, MAGIC_BYTES);
            if (candidate == NULL)
                break;
            next = (size_t)(candidate - file->scratch);
            uint32_t length = read_length(candidate + MAGIC_BYTES);
            if (length >= RECORD_MIN_BLOCK && length <= RECORD_MAX_BLOCK
                && judge(file, at + next, length) != RECORD_INCOMPLETE) {
                *found = at + next;
                return RECORD_COMPLETE;
            }
            next++;
        }
        at += begins;
    }
    return RECORD_NONE;
}

static uint64_t mix(uint64_t hash, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return hash;
}

uint64_t record_fingerprint(const uint8_t *first, const uint8_t *last, uint32_t length)
{
    const uint8_t size[4] = {(uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)(length >> 24)};
    uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), size, sizeof size);
    return mix(mix(hash, first, RECORD_MIN_BLOCK), last, RECORD_MAX_ZERO_TAIL);
}

enum record_state record_verify(const struct record_file *file, uint64_t offset, uint32_t length, uint64_t fingerprint)
{
    uint8_t first[RECORD_MIN_BLOCK], last[RECORD_MAX_ZERO_TAIL];
    if (length < RECORD_MIN_BLOCK || offset < length || offset > file->size)
        return RECORD_NONE;
    int64_t begin = record_read(file->fd, offset - length, first, sizeof first);
    int64_t end = begin < 0 ? -1 : record_read(file->fd, offset - sizeof last, last, sizeof last);
    if (end < 0)
        return RECORD_FAILED;
    if (begin != sizeof first || end != sizeof last)
        return RECORD_NONE;
    return record_fingerprint(first, last, length) == fingerprint ? RECORD_COMPLETE : RECORD_NONE;
}
