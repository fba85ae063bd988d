/* Invariant: every block that the plugin hands over is, byte by byte, a framed record of a file of the folder; whoever writes a
 * folder as a node does, in pieces of any size, gets each of its blocks exactly once and in order, also where the plugin is
 * stopped and goes on from the position it gave last; nothing is touched out of bounds, and all that was opened is closed.
 *
 * The first byte of an input says what it is for: a folder that a node writes, a folder in which anything happens, the plugin's
 * settings, or a stored position. The rest is a program for the folder, or the bytes themselves.
 */
#include "system.h"

#include <stdio.h>
#include <string.h>

#include "host.h"
#include "position.h"
#include "reader.h"
#include "record.h"
#include "settings.h"

#define MOST_BLOCKS 256
#define MILLISECOND INT64_C(1000000)
#define NETWORK (&networks[4])

static const uint8_t *program, *program_end;

static uint8_t next8(void)
{
    return program < program_end ? *program++ : 0;
}

static uint16_t next16(void)
{
    uint16_t low = next8();
    return (uint16_t)(low | next8() << 8);
}

/* ---- the host ---------------------------------------------------------------------------------------------------------- */

/* What a node wrote: where each block of a file lies. */
struct written {
    uint64_t offset; /* Of its payload. */
    uint32_t length;
};

static struct written blocks[MOST_FILES][MOST_BLOCKS];
static size_t block_count[MOST_FILES], published[MOST_FILES];
static uint8_t payload[RECORD_MAX_BLOCK < MOST_BYTES ? RECORD_MAX_BLOCK : MOST_BYTES];
static uint8_t *reserved;
static uint64_t reserved_length;
static uint8_t kept_position[POSITION_MAX_BYTES];
static uint64_t kept_length;
static bool honest;
static bool talk; /* FUZZ_TALK is set: for whoever looks at one input. */
static int32_t refusal; /* What the sink answers next. */
static struct xor_key key;

static uint8_t plain(const struct file *file, uint64_t at)
{
    return (at < MOST_BYTES ? file->bytes[at] : 0) ^ key.bytes[at % XOR_KEY_BYTES];
}

/* Whether the record whose payload ends at this offset of the file has these very bytes. */
static bool is_record(const struct file *file, uint64_t end, const uint8_t *bytes, uint32_t length)
{
    if (end > file->size || end < (uint64_t)length + RECORD_HEADER_BYTES)
        return false;
    uint64_t begin = end - length - RECORD_HEADER_BYTES;
    for (int i = 0; i < MAGIC_BYTES; i++)
        if (plain(file, begin + i) != NETWORK->magic[i] || plain(file, begin + MAGIC_BYTES + i) != (uint8_t)(length >> (8 * i)))
            return false;
    for (uint32_t i = 0; i < length; i++)
        if (plain(file, begin + RECORD_HEADER_BYTES + i) != bytes[i])
            return false;
    return true;
}

static int32_t sink_reserve(void *unused, uint64_t length, uint8_t **place)
{
    REQUIRE(!reserved && length >= RECORD_MIN_BLOCK && length <= sizeof payload);
    int32_t answer = refusal;
    refusal = SUPERVM_OK;
    if (answer != SUPERVM_OK && answer != SUPERVM_WRONG_STATE)
        return answer;
    refusal = answer;
    /* A block of its own, so that a byte too far is noticed. */
    reserved = malloc(length);
    reserved_length = length;
    *place = reserved;
    return SUPERVM_OK;
}

static int32_t sink_abandon(void *unused)
{
    if (!reserved)
        return SUPERVM_WRONG_STATE;
    free(reserved);
    reserved = NULL;
    return SUPERVM_OK;
}

static void check_honest(const struct cursor *cursor)
{
    REQUIRE(cursor->file < MOST_FILES && published[cursor->file] < block_count[cursor->file]);
    const struct written *next = &blocks[cursor->file][published[cursor->file]++];
    REQUIRE(cursor->length == next->length && cursor->offset == next->offset + next->length);
}

static int32_t sink_commit(void *unused, const struct supervm_block_1 *block)
{
    struct position position;
    REQUIRE(reserved && block->struct_size == sizeof *block && block->payload_length <= reserved_length);
    REQUIRE(block->flags == 0 && block->hash_length == 0 && block->position_length <= SUPERVM_MAX_POSITION_BYTES);
    REQUIRE(position_decode(&position, block->position, block->position_length));
    if (refusal != SUPERVM_OK) {
        refusal = SUPERVM_OK;
        sink_abandon(NULL);
        return SUPERVM_WRONG_STATE;
    }
    const struct cursor *found = NULL;
    for (size_t i = 0; i < position.count && !found; i++) {
        const struct cursor *cursor = &position.cursors[i];
        if (cursor->file < MOST_FILES && cursor->length == block->payload_length
            && is_record(&world.files[cursor->file], cursor->offset, reserved, cursor->length))
            found = cursor;
    }
    if (!found) { /* Only a position with too many cursors says nothing of the file. */
        REQUIRE(position.overflow);
        bool anywhere = false;
        for (int i = 0; i < MOST_FILES && !anywhere; i++)
            for (uint64_t end = 0; end <= world.files[i].size && end <= MOST_BYTES && !anywhere; end++)
                anywhere = is_record(&world.files[i], end, reserved, (uint32_t)block->payload_length);
        REQUIRE(anywhere);
    }
    if (honest) {
        const struct cursor *current = NULL; /* Equal blocks can lie in two files: it is the one that is due. */
        for (size_t i = 0; i < position.count && !current; i++) {
            const struct cursor *cursor = &position.cursors[i];
            size_t due = cursor->file < MOST_FILES ? published[cursor->file] : 0;
            if (cursor->file < MOST_FILES && due < block_count[cursor->file] && cursor->length == block->payload_length
                && cursor->offset == blocks[cursor->file][due].offset + cursor->length
                && is_record(&world.files[cursor->file], cursor->offset, reserved, cursor->length))
                current = cursor;
        }
        REQUIRE(current);
        check_honest(current);
    }
    memcpy(kept_position, block->position, block->position_length);
    kept_length = block->position_length;
    if (talk)
        fprintf(stderr, "block of %u bytes, position of %u\n", (unsigned)block->payload_length, block->position_length);
    free(reserved);
    reserved = NULL;
    return SUPERVM_OK;
}

static int32_t resume_position(void *unused, const uint8_t **position, uint64_t *length)
{
    if (kept_length == 0)
        return SUPERVM_NOT_FOUND;
    *position = kept_position;
    *length = kept_length;
    return SUPERVM_OK;
}

static int32_t beat(void *unused)
{
    return SUPERVM_OK;
}

static void log_line(int level, const char *text)
{
    REQUIRE(strnlen(text, SUPERVM_MAX_LOG_BYTES) < SUPERVM_MAX_LOG_BYTES);
    if (talk)
        fprintf(stderr, "%d: %s\n", level, text);
}

static int report_metric(const char *name, double value)
{
    REQUIRE(name[0] != '\0' && value >= 0);
    return SUPERVM_OK;
}

static const struct supervm_host_vtable vtable = {.host_log = log_line, .host_report_metric = report_metric};
static struct supervm_block_sink_1 sink = {
    .struct_size = sizeof sink, .reserve = sink_reserve, .commit = sink_commit, .abandon = sink_abandon};
static const struct supervm_resume_1 resume = {.struct_size = sizeof resume, .position = resume_position};
static const struct supervm_heartbeat_1 heartbeat = {.struct_size = sizeof heartbeat, .beat = beat};

/* ---- the node ---------------------------------------------------------------------------------------------------------- */

static struct reader reader;
static bool running, chunks;
static struct settings settings;
static uint64_t file_end[MOST_FILES]; /* Where a node writes next. */
static uint8_t unwritten[MOST_FILES][RECORD_HEADER_BYTES + 512]; /* The rest of a record that is half written. */
static size_t unwritten_length[MOST_FILES];
static struct written unfinished[MOST_FILES];
static uint32_t serial;

/* Preallocates as a node does: zeros up to a whole number of chunks, at least one byte of them. */
static void extend(struct file *file, uint64_t end)
{
    uint64_t size = (end / 16384 + 1) * 16384;
    if (chunks && file->size < size && size <= MOST_BYTES)
        file_resize(file, size);
}

/* Writes count bytes more of the record that is half written. */
static void write_piece(int number, size_t count)
{
    struct file *file = &world.files[number];
    /* A node that halts for long just before the end of a record is taken for one that is done: record.h says so, and how it
     * is noticed later. Here it does not halt there. */
    if (count + RECORD_MAX_ZERO_TAIL >= unwritten_length[number])
        count = unwritten_length[number];
    if (count == 0)
        return;
    extend(file, file_end[number] + count);
    file_write(file, file_end[number], unwritten[number], count);
    file_end[number] += count;
    unwritten_length[number] -= count;
    memmove(unwritten[number], unwritten[number] + count, unwritten_length[number]);
    if (unwritten_length[number] == 0) {
        blocks[number][block_count[number]++] = unfinished[number];
        unfinished[number].length = 0;
    }
}

/* Begins a record. Its raw bytes are never zero, and its header is written at once. */
static void write_record(int number, size_t length, size_t at_once)
{
    uint64_t end = file_end[number];
    if (unwritten_length[number] > 0 || block_count[number] == MOST_BLOCKS || end + 2048 > MOST_BYTES)
        return;
    uint8_t *bytes = unwritten[number];
    for (int i = 0; i < MAGIC_BYTES; i++) {
        bytes[i] = NETWORK->magic[i] ^ key.bytes[(end + i) % XOR_KEY_BYTES];
        bytes[MAGIC_BYTES + i] = (uint8_t)(length >> (8 * i)) ^ key.bytes[(end + MAGIC_BYTES + i) % XOR_KEY_BYTES];
    }
    serial++;
    for (size_t i = 0; i < length; i++)
        bytes[RECORD_HEADER_BYTES + i] = (uint8_t)((serial * 7 + i * 13) % 255 + 1);
    unwritten_length[number] = RECORD_HEADER_BYTES + length;
    unfinished[number] = (struct written){end + RECORD_HEADER_BYTES, (uint32_t)length};
    write_piece(number, RECORD_HEADER_BYTES + 1 + at_once);
}

/* ---- the plugin -------------------------------------------------------------------------------------------------------- */

static void open_reader(void)
{
    if (running)
        return;
    running = reader_open(&reader, &settings) == FAILURE_NONE;
    REQUIRE(running || world.allocations == 0);
}

static void close_reader(void)
{
    if (running)
        reader_close(&reader);
    running = false;
    REQUIRE(world.allocations == 0 && world.open == 0);
}

static void pass(void)
{
    bool progress, unsettled;
    open_reader();
    if (!running)
        return;
    uint64_t before = reader.blocks;
    enum pass_end end = reader_pass(&reader, &progress, &unsettled);
    REQUIRE(end != PASS_UNREADABLE && !reserved && world.open == 0);
    REQUIRE(progress == (reader.blocks != before));
    if (honest)
        REQUIRE(end == PASS_DONE);
    if (end == PASS_REFUSED)
        close_reader();
}

static void set_key(uint8_t kind)
{
    struct file *file = &world.files[MOST_FILES - 1];
    memset(&key, 0, sizeof key);
    file->exists = false;
    file->size = 0;
    if (kind % 3 == 0)
        return;
    for (int i = 0; i < XOR_KEY_BYTES; i++)
        key.bytes[i] = (uint8_t)(kind * 37 + i * 11) | 1;
    file_write(file, 0, key.bytes, XOR_KEY_BYTES);
}

static void begin(void)
{
    uint8_t kind = next8();
    settings = (struct settings){.network = NETWORK, .follow = kind & 1, .start_height = kind & 2 ? 7 : SUPERVM_HEIGHT_UNKNOWN};
    strcpy(settings.blocks_dir, "folder");
    chunks = kind & 4;
    set_key(kind >> 3 & 7);
    sink.max_payload = !honest && kind & 64 ? 100 : sizeof payload;
    host = (struct host){.vtable = &vtable, .sink = &sink, .resume = honest || kind & 128 ? &resume : NULL, .heartbeat = &heartbeat};
}

/* ---- a folder that a node writes --------------------------------------------------------------------------------------- */

static void play_honest(void)
{
    int files = 1;
    file_write(&world.files[0], 0, NULL, 0);
    extend(&world.files[0], 0);
    while (program < program_end) {
        uint8_t operation = next8();
        /* A file that is full to its last byte and not the highest is never written again; one with zeros may be. */
        int number = chunks ? next8() % files : files - 1;
        world.now += MILLISECOND * (operation >> 4 & 7);
        switch (operation % 8) {
        case 0: case 1: write_record(number, RECORD_MIN_BLOCK + next8(), next8()); break;
        case 2: write_piece(number, next8() + 1u); break;
        case 3: write_piece(number, 1024); break;
        case 4: case 5: pass(); break;
        case 6:
            close_reader();
            world.now += MILLISECOND * next8();
            break;
        default:
            if (operation & 8 && files < 5 && (chunks || unwritten_length[number] == 0)) {
                file_write(&world.files[files], 0, NULL, 0);
                extend(&world.files[files], 0);
                files++;
            }
            world.now += MILLISECOND * 97 * next8();
        }
    }
    for (int i = 0; i < files; i++)
        write_piece(i, 1024);
    for (int i = 0; i < 4; i++) {
        world.now += 11000 * MILLISECOND;
        pass();
    }
    for (int i = 0; i < files; i++)
        REQUIRE(published[i] == block_count[i]);
}

/* ---- a folder in which anything happens -------------------------------------------------------------------------------- */

static void play_wild(void)
{
    while (program < program_end) {
        uint8_t operation = next8();
        int number = next8() % (MOST_FILES - 1);
        struct file *file = &world.files[number];
        world.now += MILLISECOND * (operation >> 5) * (operation >> 5) * 40;
        switch (operation % 20) {
        case 0: case 1: case 2: write_record(number, RECORD_MIN_BLOCK + next8(), 1024); break;
        case 3: write_record(number, RECORD_MIN_BLOCK + next8(), next8()); break;
        case 4: write_piece(number, next8() + 1u); break;
        case 5: { /* Any bytes, at the end or before it. */
            uint8_t bytes[16];
            size_t count = next8() % sizeof bytes;
            uint64_t at = operation & 32 ? file_end[number] : next16() % (file_end[number] + 1);
            for (size_t i = 0; i < count; i++)
                bytes[i] = next8();
            file_write(file, at, bytes, count);
            if (at + count > file_end[number])
                file_end[number] = at + count;
            break;
        }
        case 6: { /* A length, of a record that is there. */
            if (block_count[number] == 0)
                break;
            const struct written *block = &blocks[number][next8() % block_count[number]];
            uint32_t length = operation & 32 ? next16() : next16() * 97u;
            uint64_t at = block->offset - MAGIC_BYTES;
            uint8_t bytes[4];
            for (int i = 0; i < 4; i++)
                bytes[i] = (uint8_t)(length >> (8 * i)) ^ key.bytes[(at + i) % XOR_KEY_BYTES];
            file_write(file, at, bytes, 4);
            break;
        }
        case 7: { /* Zeros at the end, of the disk or of the block. */
            size_t count = next8();
            file_end[number] += count;
            if (file_end[number] > MOST_BYTES)
                file_end[number] = MOST_BYTES;
            if (file->size < file_end[number])
                file_resize(file, file_end[number]);
            break;
        }
        case 8: file_resize(file, next16() % (file->size + 1)); break;
        case 9: /* Far more than what is written, but not so much that looking through it takes all the time. */
            if (file->size < MOST_BYTES)
                file_resize(file, file->size + ((uint64_t)next8() << (operation & 32 && number == 0 ? 13 : 6)));
            break;
        case 10: case 11: case 12: pass(); break;
        case 13: close_reader(); break;
        case 14: world.fail_in = next8() % 32; break;
        case 15: world.cut_in = next8() % 16; break;
        case 16: world.short_reads = true; break;
        case 17: /* A position that nobody gave, or none. */
            kept_length = next8();
            for (size_t i = 0; i < kept_length && i < 26; i++)
                kept_position[i] ^= next8();
            kept_length = kept_length > POSITION_MAX_BYTES ? POSITION_MAX_BYTES : kept_length / 24 * 24 + 2;
            break;
        case 18: {
            static const int32_t answers[] = {SUPERVM_TOO_LARGE, SUPERVM_STOPPING, SUPERVM_NOT_GRANTED, SUPERVM_WRONG_STATE};
            refusal = answers[next8() % 4];
            break;
        }
        default:
            switch (next8() % 8) {
            case 0: file->exists = !file->exists; break;
            case 1: file->directory = !file->directory; break;
            case 2: file->dangling = !file->dangling; break;
            case 3: file->inode += 100; break;
            case 4: set_key(next8()); break;
            case 5: world.files[MOST_FILES - 1].size = next8() % 16; break;
            case 6: file->changed = world.now + MILLISECOND * 5000 * (next8() % 4); break;
            default: atomic_store(&reader.stopping, next8() & 1); break;
            }
        }
    }
}

/* ---- settings and positions -------------------------------------------------------------------------------------------- */

static void play_settings(void)
{
    size_t length = (size_t)(program_end - program);
    char *json = malloc(length);
    REQUIRE(json || length == 0);
    if (length)
        memcpy(json, program, length);
    struct settings found;
    host = (struct host){.vtable = &vtable};
    enum failure failure = settings_read(&found, json, length);
    REQUIRE(failure == FAILURE_NONE || failure == FAILURE_SETTINGS);
    if (failure == FAILURE_NONE) {
        size_t path = strnlen(found.blocks_dir, sizeof found.blocks_dir);
        REQUIRE(path > 0 && path < sizeof found.blocks_dir);
        REQUIRE(found.network >= networks && found.network < networks + network_count);
        REQUIRE(found.start_height == SUPERVM_HEIGHT_UNKNOWN || found.start_height <= INT32_MAX);
        REQUIRE(json[strspn(json, " \t\r\n")] == '{'); /* There is at least one member, so there is a brace. */
    }
    free(json);
}

static void play_position(void)
{
    struct position position;
    uint8_t again[POSITION_MAX_BYTES];
    size_t length = (size_t)(program_end - program);
    uint8_t *bytes = malloc(length);
    REQUIRE(bytes || length == 0);
    if (length)
        memcpy(bytes, program, length);
    if (position_decode(&position, bytes, length)) {
        REQUIRE(position.count >= 1 && position.count <= POSITION_MAX_CURSORS);
        REQUIRE(position_encode(&position, again) == length && memcmp(again, bytes, length) == 0);
    }
    free(bytes);
}

int LLVMFuzzerInitialize(int *count, char ***values)
{
    talk = getenv("FUZZ_TALK") != NULL;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    program = data;
    program_end = data + size;
    system_reset();
    memset(block_count, 0, sizeof block_count);
    memset(published, 0, sizeof published);
    memset(file_end, 0, sizeof file_end);
    memset(unwritten_length, 0, sizeof unwritten_length);
    memset(kept_position, 0, sizeof kept_position);
    kept_length = 0;
    serial = 0;
    refusal = SUPERVM_OK;
    running = false;
    uint8_t kind = next8() % 8;
    if (kind == 7) {
        play_position();
    } else if (kind == 6) {
        play_settings();
    } else {
        honest = kind < 3;
        begin();
        if (honest)
            play_honest();
        else
            play_wild();
        close_reader();
    }
    return 0;
}
