#define _GNU_SOURCE
#include "reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS INT64_C(1000000000)

/* How long a file must have been left alone before a half-written record in it is no longer waited for, if a higher file
 * exists. The highest file is waited for as long as it takes. */
#define ABANDONED_SECONDS 10

/* Bounds of what one damaged folder may put into the host's log. */
#define MAX_GAPS_TOLD 16
#define MAX_FAILURES_TOLD 16

void block_file_name(char name[FILE_NAME_BYTES], uint32_t number)
{
    snprintf(name, FILE_NAME_BYTES, "blk%05" PRIu32 ".dat", number);
}

static int64_t clock_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * NANOSECONDS + now.tv_nsec;
}

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}

/* Whether nobody had written for this long at a time before status was taken. A file whose time lies clearly in the future was
 * written by another clock: it is not waited for. */
static bool left_alone(const struct stat *status, int64_t time, int64_t duration)
{
    int64_t alone = time - nanoseconds(status->st_mtim);
    return alone >= duration || alone < -2 * NANOSECONDS;
}

static struct stamp stamp_of(const struct stat *status)
{
    return (struct stamp){(uint64_t)status->st_size, status->st_dev, status->st_ino, nanoseconds(status->st_ctim),
                          nanoseconds(status->st_mtim)};
}

/* Nothing was written since the last look. Times of files advance in ticks, so a change right after a look can leave the
 * stamp as it was; a look that came well after the last change cannot be deceived. */
static bool is_unchanged(const struct block_file *file, const struct stat *status)
{
    struct stamp now = stamp_of(status);
    return now.size == file->stamp.size && now.device == file->stamp.device && now.inode == file->stamp.inode
           && now.changed == file->stamp.changed && file->looked_at - now.changed > READER_SETTLE_MS * (NANOSECONDS / 1000);
}

static void tell_failure(struct reader *reader, struct block_file *file, const char *name, const char *reason)
{
    /* The blocks of this file will be missing, so whatever comes next need not be the block that start_height speaks of. */
    reader->claim = SUPERVM_HEIGHT_UNKNOWN;
    if (file->failed)
        return;
    file->failed = true;
    if (reader->failures_told >= MAX_FAILURES_TOLD) {
        reader->failures_silent++;
        return;
    }
    reader->failures_told++;
    host_say(SUPERVM_LOG_ERROR,
             "%s cannot be read at byte %" PRIu64 ": %s: its blocks are left out; make it readable for the user "
             "that runs the host", name, file->cursor.offset, reason);
}

/* Says once what lies at this offset. count: bytes that are not blocks. */
static void tell_damage(struct block_file *file, const char *name, uint64_t offset, uint64_t count, const char *what)
{
    if (file->told_at == offset + 1)
        return;
    file->told_at = offset + 1;
    file->gaps++;
    if (file->gaps <= MAX_GAPS_TOLD)
        host_say(SUPERVM_LOG_WARNING, "%s: byte %" PRIu64 ": %" PRIu64 " bytes %s", name, offset, count, what);
    if (file->gaps == MAX_GAPS_TOLD)
        host_say(SUPERVM_LOG_WARNING, "%s: further damage in this file is not listed", name);
}

static void rewind_file(struct block_file *file)
{
    file->cursor = (struct cursor){.file = file->cursor.file};
    file->has_gap = false;
    file->told_at = 0;
    file->suspect_since = 0;
}

/* ---- publishing -------------------------------------------------------------------------------------------------------- */

static enum pass_end refuse(int32_t status, const char *name, uint64_t offset)
{
    if (status == SUPERVM_STOPPING)
        return PASS_STOPPED;
    host_say(SUPERVM_LOG_ERROR,
             "%s: byte %" PRIu64 ": the host's block sink answered %" PRId32 ": reading ends here", name, offset,
             status);
    return PASS_REFUSED;
}

/* Hands the record at the cursor to the host, and moves the cursor behind it. *whole: its bytes were all there. */
static enum pass_end publish(struct reader *reader, struct block_file *file, const struct record_file *open, const char *name,
                             uint32_t length, bool *whole)
{
    const struct supervm_block_sink_1 *sink = host.sink;
    uint64_t begin = file->cursor.offset + RECORD_HEADER_BYTES;
    struct cursor after = {.file = file->cursor.file, .length = length, .offset = begin + length};
    int32_t status = length > sink->max_payload ? SUPERVM_TOO_LARGE : SUPERVM_OK;
    uint8_t *payload = NULL;
    if (status == SUPERVM_OK)
        status = sink->reserve(sink->host, length, &payload);
    if (status == SUPERVM_TOO_LARGE) {
        tell_damage(file, name, file->cursor.offset, length,
                    "are one block, larger than the host takes: left out; give this plugin a "
                    "larger ring");
        reader->claim = SUPERVM_HEIGHT_UNKNOWN;
        file->cursor.offset = after.offset;
        file->cursor.length = 0;
        return PASS_DONE;
    }
    if (status != SUPERVM_OK)
        return refuse(status, name, file->cursor.offset);

    int64_t got = record_read(open->fd, begin, payload, length);
    *whole = got == length;
    if (!*whole) {
        int error = errno;
        sink->abandon(sink->host);
        errno = error;
        return got < 0 ? PASS_UNREADABLE : PASS_DONE;
    }
    after.fingerprint = record_fingerprint(payload, payload + length - RECORD_MAX_ZERO_TAIL, length);
    xor_key_apply(&reader->key, begin, payload, length);

    uint8_t position[POSITION_MAX_BYTES];
    if (reader->current != SIZE_MAX)
        reader->position.cursors[reader->current] = after;
    const struct supervm_block_1 block = {
        .struct_size = sizeof block,
        .height = reader->claim,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .position = position,
        .position_length = (uint32_t)position_encode(&reader->position, position),
        .payload_length = length,
    };
    status = sink->commit(sink->host, &block);
    if (status != SUPERVM_OK) {
        /* Whether a refused commit gives the place back is the host's affair; where it did, this answers WRONG_STATE. */
        sink->abandon(sink->host);
        return refuse(status, name, file->cursor.offset);
    }
    file->cursor = after;
    reader->claim = SUPERVM_HEIGHT_UNKNOWN;
    reader->blocks++;
    reader->bytes += length;
    return PASS_DONE;
}

/* ---- reading one file -------------------------------------------------------------------------------------------------- */

/* Opens a file of the folder for a look. NULL, or why it cannot be. */
static const char *open_file(struct reader *reader, struct record_file *open, const char *name, int folder_fd,
                             struct stat *status)
{
    /* Not blocking: a FIFO of this name must not hang the plugin. */
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return strerror(errno);
    const char *error = NULL;
    if (fstat(fd, status) != 0)
        error = strerror(errno);
    else if (!S_ISREG(status->st_mode))
        error = "it is not a regular file";
    if (error != NULL) {
        close(fd);
        return error;
    }
    *open = (struct record_file){
        .fd = fd,
        .size = (uint64_t)status->st_size,
        .key = &reader->key,
        .magic = reader->settings.network->magic,
        .scratch = reader->scratch,
        .stopping = &reader->stopping,
    };
    return NULL;
}

/* Whether everything up to the cursor is still what was read. A node that crashed goes on where its index says, which may lie
 * before the end of what it had written, and so writes other blocks over those; a folder may also be replaced as a whole. */
static enum record_state check_past(const struct record_file *open, const struct block_file *file)
{
    if (open->size < file->cursor.offset)
        return RECORD_NONE;
    if (file->has_gap) {
        uint8_t raw[RECORD_HEADER_BYTES] = {0};
        if (record_read(open->fd, file->gap_at, raw, sizeof raw) < 0)
            return RECORD_FAILED;
        if (memcmp(raw, file->gap_raw, sizeof raw) != 0)
            return RECORD_NONE;
    }
    if (file->cursor.length == 0)
        return RECORD_COMPLETE;
    return record_verify(open, file->cursor.offset, file->cursor.length, file->cursor.fingerprint);
}

enum record_state block_file_check(struct reader *reader, const struct block_file *file, int folder_fd)
{
    char name[FILE_NAME_BYTES];
    struct record_file open;
    struct stat status;
    block_file_name(name, file->cursor.file);
    if (open_file(reader, &open, name, folder_fd, &status) != NULL)
        return RECORD_FAILED;
    enum record_state state = check_past(&open, file);
    close(open.fd);
    return state;
}

/* Goes on behind bytes that are not a record: moves the cursor to the next record, if there is one. */
static enum record_state leave_gap(struct block_file *file, const struct record_file *open, const char *name, const char *what,
                                   bool doubt_last)
{
    uint64_t gap = file->cursor.offset, found;
    /* A record whose length was damaged ends anywhere and hides the records that it covers: where not even the beginning of one
     * follows it, its own bytes are searched too. Elsewhere they are not: a block may hold bytes that imitate records. */
    uint64_t from = doubt_last ? gap - file->cursor.length : gap;
    enum record_state state = record_search(open, from, &found);
    if (state != RECORD_COMPLETE)
        return state;
    if (found < gap)
        tell_damage(file, name, found, gap - found,
                    "belong to a record whose length is wrong: read again as records of their own");
    else
        tell_damage(file, name, gap, found - gap, what);
    uint8_t raw[RECORD_HEADER_BYTES] = {0};
    if (record_read(open->fd, gap, raw, sizeof raw) < 0)
        return RECORD_FAILED;
    memcpy(file->gap_raw, raw, sizeof raw);
    file->gap_at = gap;
    file->has_gap = true;
    file->cursor.offset = found;
    file->cursor.length = 0;
    return RECORD_COMPLETE;
}

/* What a failed step inside a file means for the pass. */
static enum pass_end pass_end_of(enum record_state state)
{
    return state == RECORD_FAILED ? PASS_UNREADABLE : state == RECORD_STOPPED ? PASS_STOPPED : PASS_DONE;
}

/* Deals with the bytes at the cursor that are no record. *more: reading can go on. */
static enum pass_end pass_over(struct block_file *file, const struct record_file *open, const char *name, const char *gap,
                               const char *last_gap, bool doubt_last, bool *more)
{
    uint64_t rest = open->written - file->cursor.offset;
    enum record_state state = leave_gap(file, open, name, gap, doubt_last);
    *more = state == RECORD_COMPLETE;
    if (state == RECORD_NONE)
        tell_damage(file, name, file->cursor.offset, rest, last_gap);
    return pass_end_of(state);
}

/* Reads records from the cursor to the end of the written part. */
static enum pass_end read_records(struct reader *reader, struct block_file *file, const struct record_file *open,
                                  const char *name, bool *unsettled)
{
    bool more = true;
    enum pass_end end = PASS_DONE;
    while (more && end == PASS_DONE && file->cursor.offset < open->written) {
        if (atomic_load_explicit(&reader->stopping, memory_order_relaxed))
            return PASS_STOPPED;
        host_beat();
        uint32_t length;
        enum record_state state = record_look(open, file->cursor.offset, &length);
        switch (state) {
        case RECORD_COMPLETE:
            end = publish(reader, file, open, name, length, &more);
            if (!more) /* Cut while it was read: the next look sees the file as it is then. */
                file->look_again = *unsettled = true;
            break;
        case RECORD_UNSETTLED:
            file->look_again = *unsettled = true;
            return PASS_DONE;
        case RECORD_INCOMPLETE:
            if (open->growing) {
                file->look_again = true;
                return PASS_DONE;
            }
            end = pass_over(file, open, name, "are a record with an impossible length: skipped",
                            "are a truncated record, the last of the file: left out", length == 0, &more);
            break;
        case RECORD_NONE:
            end = pass_over(file, open, name, "are not a block of this network: skipped",
                            "up to the end of the file are not a block of this network: left out", true, &more);
            break;
        default:
            return pass_end_of(state);
        }
    }
    return end;
}

/* Whether the file was written to, and not where its written part ended: a node that crashed goes on where its index says, over
 * what it wrote before. Most of that is found by check_past, but only once the node comes to the last record that was read. */
static bool is_written_below(const struct block_file *file, const struct record_file *open, const struct stamp *now)
{
    const struct stamp *before = &file->stamp;
    return now->modified != before->modified && now->size == before->size && now->device == before->device
           && now->inode == before->inode && open->written == file->written;
}

/* Takes note of writing below what was read, and says whether the file is to be read again now. */
static bool must_read_again(struct block_file *file, const struct record_file *open, bool written_below, bool *unsettled)
{
    const int64_t settle = READER_SETTLE_MS * (NANOSECONDS / 1000);
    if (file->cursor.offset == 0 || open->written != file->written)
        file->suspect_since = 0;
    else if (file->suspect_since == 0 && written_below)
        file->suspect_since = file->looked_at;
    if (file->suspect_since == 0)
        return false;
    file->look_again = true;
    /* The time of a file changes just before its bytes do: they are given a moment to show up behind the end after all. */
    int64_t suspected = file->looked_at - file->suspect_since, rested = file->looked_at - file->read_again_at;
    if (suspected >= 0 && suspected < settle) { /* Less than 0: the clock was set back. */
        *unsettled = true;
        return false;
    }
    /* A node that writes over much does so for long; reading again is kept to about 16 MiB a second. */
    return rested < 0 || rested >= (int64_t)(file->cursor.offset >> 24) * NANOSECONDS;
}

static void read_again(struct block_file *file, const char *name)
{
    if (!file->told_suspect)
        host_say(SUPERVM_LOG_WARNING,
                 "%s is being written to below byte %" PRIu64 ", up to which it had been read, as a node does that "
                 "crashed: it is read again from its beginning, now and after each further change of this kind", name,
                 file->cursor.offset);
    file->told_suspect = true;
    file->read_again_at = file->looked_at;
    rewind_file(file);
}

/* Finds where the written part ends, together with the time of the last writing that belongs to it. */
static enum record_state measure(struct block_file *file, struct record_file *open, struct stat *status)
{
    file->comparable = false;
    for (int attempt = 0; attempt < 4 && !file->comparable; attempt++) {
        int64_t before = nanoseconds(status->st_mtim);
        open->size = (uint64_t)status->st_size;
        enum record_state state = record_find_written_end(open, file->cursor.offset);
        if (state != RECORD_COMPLETE)
            return state;
        if (fstat(open->fd, status) != 0)
            return RECORD_FAILED;
        file->comparable = nanoseconds(status->st_mtim) == before && (uint64_t)status->st_size == open->size;
    }
    return RECORD_COMPLETE;
}

static enum pass_end read_open_file(struct reader *reader, struct block_file *file, struct record_file *open, const char *name,
                                    struct stat *status, bool highest, bool *unsettled)
{
    bool was_comparable = file->comparable;
    enum record_state state = check_past(open, file);
    if (state == RECORD_NONE) {
        host_say(SUPERVM_LOG_WARNING,
                 "%s was changed below byte %" PRIu64 ", up to which it had been read: it is read again from its "
                 "beginning", name, file->cursor.offset);
        rewind_file(file);
        state = RECORD_COMPLETE;
    }
    if (state == RECORD_COMPLETE)
        state = measure(file, open, status);
    const struct stamp now = stamp_of(status);
    bool written_below = state == RECORD_COMPLETE && was_comparable && is_written_below(file, open, &now);
    if (state == RECORD_COMPLETE && must_read_again(file, open, written_below, unsettled)) {
        read_again(file, name);
        state = record_find_written_end(open, 0);
    }
    file->stamp = now;
    file->written = open->written;
    if (state != RECORD_COMPLETE)
        return pass_end_of(state);
    open->quiet = left_alone(status, file->looked_at, READER_SETTLE_MS * (NANOSECONDS / 1000));
    open->growing = reader->settings.follow && (highest || !left_alone(status, file->looked_at, ABANDONED_SECONDS * NANOSECONDS));
    reader_prepare_position(reader, file);
    return read_records(reader, file, open, name, unsettled);
}

enum pass_end block_file_read(struct reader *reader, struct block_file *file, int folder_fd, bool highest, bool *unsettled)
{
    char name[FILE_NAME_BYTES];
    struct stat status;
    struct record_file open;
    block_file_name(name, file->cursor.file);

    if (fstatat(folder_fd, name, &status, 0) == 0 && file->touched && !file->look_again && !file->failed
        && is_unchanged(file, &status))
        return PASS_DONE;
    file->touched = true;
    file->look_again = false;
    file->looked_at = clock_nanoseconds();
    const char *error = open_file(reader, &open, name, folder_fd, &status);
    if (error != NULL) {
        /* A file that was pruned since the folder was listed is no failure; a link that leads nowhere is one. */
        struct stat link;
        if (fstatat(folder_fd, name, &link, AT_SYMLINK_NOFOLLOW) == 0)
            tell_failure(reader, file, name, error);
        return PASS_DONE;
    }
    if (file->take_as_read) {
        file->take_as_read = false;
        file->stamp = stamp_of(&status);
        file->cursor.offset = open.size;
        close(open.fd);
        return PASS_DONE;
    }
    enum pass_end end = read_open_file(reader, file, &open, name, &status, highest, unsettled);
    int read_error = errno;
    /* The last record may have ended in zeros. */
    if (file->written < file->cursor.offset)
        file->written = file->cursor.offset;
    close(open.fd);
    if (end == PASS_UNREADABLE) {
        tell_failure(reader, file, name, strerror(read_error));
        return PASS_DONE;
    }
    file->failed = false;
    return end;
}
