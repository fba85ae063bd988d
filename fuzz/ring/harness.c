/* Invariant: whatever a plugin's side does, the host reads nothing but what was published, in order and as it was, or says
 * "corrupt"; a frame that is pinned keeps its bytes; what was taken is given back, once; nothing is touched out of bounds.
 *
 * The input is a program. Its first bytes say what world it runs in; each further byte is an operation of the plugin, of the host
 * or of what lies between them, followed by its operands. In an honest world a plain list of what was published says what the
 * host must find. In an adversarial one the plugin also writes where it may, into its own page and the data, between two operations
 * and while the host copies something out of them, and every frame that still comes out must be one that a host can read to its
 * last byte.
 */
#include "system.h"

#include <inttypes.h>
#include <stdio.h>

#include "in_process.h"

#define CAPACITY RING_MINIMUM_CAPACITY
#define MOST_FRAMES 24
#define MOST_PENDING 2048
#define PATTERN_BYTES (CAPACITY * 4)
#define ANOTHER_THREAD UINT64_C(0xfeed)
#define MOST_MESSAGES 2048

/* ---- the program ------------------------------------------------------------------------------------------------------- */

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

static uint64_t next64(void)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)next8() << (8 * i);
    return value;
}

/* ---- what was said, and what must come out ----------------------------------------------------------------------------- */

/* Every length and every byte follows from these. */
struct said {
    uint16_t kind;
    uint64_t payload_length;
    uint64_t height, final_height, to_height;
    int64_t time;
    uint8_t hash_length, parent_length, item_length;
    uint16_t position_length;
    bool has_weight, external;
    uint32_t serial; /* Which bytes. */
};

struct held {
    struct frame_core core;
    struct said said;
    bool used;
    bool lied;    /* The plugin had lied when it was read, so that nothing says what it should hold. */
    uint64_t sum; /* Of what it showed first, where the plugin may lie; 0: not known yet. */
};

struct message {
    uint32_t kind, text_length;
    uint64_t data_length;
    double value;
    int32_t level;
    uint32_t serial;
    uint8_t script; /* Which characters the text is made of. */
};

static uint8_t pattern[PATTERN_BYTES];
static struct slot *slot;
static struct reader *reader; /* Outlives the slot while frames need it. */
static struct said pending[MOST_PENDING];
static uint64_t pending_first, pending_next;
static struct message messages[MOST_MESSAGES];
static uint64_t message_first, message_next;
static struct held frames[MOST_FRAMES];
static uint32_t serial;
static const uint8_t *area, *area_end; /* Where the plugin can write, and the host's words. */
static bool adversarial, lied, side_lied, stopped, forked;
static bool reading; /* The host is. */
static uint64_t lies, lies_between, operations, operations_of_liars; /* Of all inputs. */
static uint64_t external_said, external_released, frames_read, bytes_read;

static const uint8_t *bytes_of(uint32_t number, uint32_t part)
{
    return pattern + (number * 131u + part * 1031u) % (PATTERN_BYTES - CAPACITY - 1);
}

static void release(void *argument)
{
    REQUIRE(*(uint32_t *)argument == 1);
    *(uint32_t *)argument = 0;
    external_released++;
}

/* One word per external, to notice a second release. */
static uint32_t outstanding[MOST_PENDING];

static void expect(const struct said *said)
{
    REQUIRE(pending_next - pending_first < MOST_PENDING);
    pending[pending_next++ % MOST_PENDING] = *said;
}

static void check_frame(struct held *held)
{
    struct frame_core *core = &held->core;
    const struct record_header *header = &core->header;
    const struct said *said = &held->said;
    const uint8_t *payload = frame_payload(core), *tails = frame_tails(core);
    if (adversarial) {
        /* Nothing of it lies where the plugin can write, and so it stays as it was first seen. */
        REQUIRE(core->record + header->total_length <= area || core->record >= area_end);
        uint64_t tails_length = record_tails_length(header), sum = 1;
        REQUIRE(sizeof *header + record_stored_length(header) + tails_length <= header->total_length);
        REQUIRE(header->total_length <= CAPACITY);
        REQUIRE(memcmp(header, core->record, sizeof *header) == 0);
        for (uint64_t i = 0; i < header->payload_length; i += 509)
            sum = sum * 31 + payload[i];
        if (header->payload_length)
            sum = sum * 31 + payload[header->payload_length - 1];
        for (uint64_t i = 0; i < tails_length; i++)
            sum = sum * 31 + tails[i];
        REQUIRE(held->sum == 0 || held->sum == sum);
        held->sum = sum;
        if (held->lied)
            return;
    }
    REQUIRE(header->kind == said->kind && header->payload_length == said->payload_length);
    REQUIRE(header->height == said->height && header->final_height == said->final_height);
    REQUIRE(header->time == said->time && header->to_height == said->to_height);
    REQUIRE(header->hash_length == said->hash_length && header->parent_length == said->parent_length);
    REQUIRE(header->position_length == said->position_length && header->item_length == said->item_length);
    REQUIRE(header->weight_length == (said->has_weight ? SUPERVM_WEIGHT_BYTES : 0));
    REQUIRE(memcmp(payload, bytes_of(said->serial, 0), said->payload_length) == 0);
    REQUIRE(memcmp(tails, bytes_of(said->serial, 1), said->hash_length) == 0);
    tails += said->hash_length;
    REQUIRE(memcmp(tails, bytes_of(said->serial, 2), said->parent_length) == 0);
    tails += said->parent_length;
    if (said->has_weight) {
        REQUIRE(memcmp(tails, bytes_of(said->serial, 3), SUPERVM_WEIGHT_BYTES) == 0);
        tails += SUPERVM_WEIGHT_BYTES;
    }
    REQUIRE(memcmp(tails, bytes_of(said->serial, 4), said->position_length) == 0);
}

static void check_counts(void)
{
    uint64_t pinned = 0, exported = 0, references = slot ? 1 : 0;
    if (!reader)
        return;
    for (int i = 0; i < MOST_FRAMES; i++) {
        const struct held *held = &frames[i];
        if (!held->used)
            continue;
        pinned += held->core.in_place;
        references += held->core.reader != NULL;
        if (held->core.in_place && !held->core.external && held->core.exports)
            exported += held->core.header.total_length;
        REQUIRE((held->core.reader != NULL) == (held->core.in_place || held->core.external));
    }
    if (references == 0) {
        reader = NULL; /* Freed with its last frame. */
        return;
    }
    REQUIRE(reader->pinned_frames == pinned && reader->exported_bytes == exported && reader->references == references);
    REQUIRE(exported <= CAPACITY / 2);
    REQUIRE(reader->frames == frames_read && reader->bytes == bytes_read);
    uint64_t freed = reader->freed;
    if (adversarial) {
        const struct landing *landing = &reader->landing;
        REQUIRE(freed <= landing->next && landing->next - freed <= CAPACITY);
        REQUIRE(reader->ring.read_position <= landing->until && landing->until - reader->ring.tail <= CAPACITY);
        freed = reader->ring.read_position;
    }
    REQUIRE(reader->ring.tail <= freed && freed <= reader->ring.read_position);
    if (!lied) {
        REQUIRE(reader->ring.read_position <= reader->ring.head);
        REQUIRE(reader->ring.head - reader->ring.tail <= CAPACITY);
        REQUIRE(reader_used(reader) == reader->ring.head - freed);
    } else {
        (void)reader_used(reader);
    }
    if (!forked)
        REQUIRE(atomic_load(&reader->ring.host->tail) == reader->ring.tail);
}

/* ---- the host's side --------------------------------------------------------------------------------------------------- */

static struct held *free_frame(void)
{
    for (int i = 0; i < MOST_FRAMES; i++)
        if (!frames[i].used)
            return &frames[i];
    return NULL;
}

static struct held *chosen_frame(void)
{
    struct held *held = &frames[next8() % MOST_FRAMES];
    return held->used ? held : NULL;
}

/* Reads the next frame of those that the last look saw, or of those that a look sees now. 1: a frame was read. 0: there is
 * none, or no room for it here. -1: the ring is corrupt. */
static int read_frame(bool look_first)
{
    struct held *held = free_frame();
    if (!slot || !held || (!look_first && reader->corrupt))
        return 0;
    int look = look_first ? reader_look(reader) : 1;
    REQUIRE(look >= 0 || lied);
    if (look == 1) {
        memset(&held->core, 0, sizeof held->core);
        reading = true;
        look = reader_next(reader, &held->core);
        reading = false;
        if (look == -2) { /* No memory for a copy. */
            REQUIRE(adversarial && !reader->corrupt && !held->core.reader && !held->core.record);
            return 0;
        }
        REQUIRE(look >= 0 || lied);
    }
    if (look < 0) {
        REQUIRE(reader->corrupt && reader_look(reader) == -1);
        REQUIRE(!held->core.reader && !held->core.record);
        return -1;
    }
    if (look == 0) {
        REQUIRE(!look_first || lied || pending_first == pending_next);
        return 0;
    }
    held->used = true;
    held->lied = lied;
    held->sum = 0;
    frames_read++;
    bytes_read += held->core.header.payload_length;
    if (!lied) {
        REQUIRE(pending_first != pending_next);
        held->said = pending[pending_first++ % MOST_PENDING];
    }
    check_frame(held);
    return 1;
}

static int take_frame(void)
{
    return read_frame(true);
}

/* As the host does it: one look, and all that it saw. */
static void take_batch(void)
{
    if (take_frame() == 1)
        while (read_frame(false) == 1)
            ;
}

static void drop_frame(struct held *held)
{
    check_frame(held);
    while (held->core.exports)
        frame_unpin(&held->core);
    frame_drop(&held->core);
    held->used = false;
}

static void drop_oldest(void)
{
    struct held *oldest = NULL;
    for (int i = 0; i < MOST_FRAMES; i++)
        if (frames[i].used && (!oldest || frames[i].core.sequence < oldest->core.sequence))
            oldest = &frames[i];
    if (oldest)
        drop_frame(oldest);
}

/* The texts that go through the side ring: of one byte a character, of three, or of bytes that begin none. */
static const char *text_of(const struct message *message, size_t length)
{
    static char text[SUPERVM_MAX_LOG_BYTES * 2];
    for (size_t i = 0; i < length && message->script; i++)
        text[i] = message->script == 1 ? "\xe2\x82\xac"[i % 3] : '\x80';
    if (!message->script)
        memcpy(text, bytes_of(message->serial, 0), length);
    text[length] = '\0';
    return text;
}

/* What of it the host takes: no character is cut in two. */
static uint32_t text_taken(const struct message *message, size_t length, size_t limit)
{
    if (length <= limit)
        return (uint32_t)length;
    return (uint32_t)(limit - (message->script == 1 ? limit % 3 : message->script ? 3 : 0));
}

static void take_message(void)
{
    struct message_header header;
    const uint8_t *text, *data;
    if (!slot)
        return;
    reading = true;
    int answer = side_ring_next(slot->side, &header, &text, &data);
    reading = false;
    REQUIRE(answer >= 0 || side_lied);
    if (answer <= 0) {
        REQUIRE(side_lied || message_first == message_next);
        return;
    }
    if (side_lied) {
        volatile uint8_t sum = 0;
        REQUIRE(header.total_length <= CAPACITY && sizeof header + header.text_length + header.data_length <= header.total_length);
        for (uint64_t i = 0; i < header.text_length; i++)
            sum += text[i];
        for (uint64_t i = 0; i < header.data_length; i++)
            sum += data[i];
    } else {
        REQUIRE(message_first != message_next);
        const struct message *said = &messages[message_first++ % MOST_MESSAGES];
        REQUIRE(header.kind == said->kind && header.text_length == said->text_length);
        REQUIRE(header.data_length == said->data_length && header.level == said->level);
        REQUIRE(memcmp(&header.value, &said->value, sizeof header.value) == 0);
        REQUIRE(memcmp(text, text_of(said, said->text_length), said->text_length) == 0);
        REQUIRE(memcmp(data, bytes_of(said->serial, 1), said->data_length) == 0);
    }
    side_ring_done(slot->side, &header);
}

static void stop(void)
{
    if (!slot)
        return;
    slot_begin_stop(slot);
    stopped |= !forked;
}

/* The plugin's thread sleeps: for room, or for its lock. */
void other_threads(const _Atomic uint32_t *word)
{
    uint32_t before = atomic_load(word);
    if (word == &slot->lock.sequence) {
        uint8_t choice = next8();
        REQUIRE(lied || (channel_last_sign(slot->channel) > 0 && slot_sink_is_busy(slot)));
        if (choice & 4) {
            atomic_store(&slot->lock.owner, 0);
            REQUIRE(lied || slot_sink_is_busy(slot)); /* Somebody waits. */
        }
        if (choice % 4 == 0)
            stop();
        else if (choice % 4 == 1)
            return; /* Woken for nothing. */
        atomic_store(&slot->lock.owner, 0);
        atomic_thread_fence(memory_order_seq_cst);
        owner_lock_notify(&slot->lock);
        REQUIRE(atomic_load(word) != before); /* It waits, so it has to be told. */
        return;
    }
    REQUIRE(word == &reader->ring.host->space_sequence);
    REQUIRE(lied || channel_last_sign(slot->channel) > 0); /* Who waits lives. */
    uint64_t tail = reader->ring.tail, wakes = world.wakes;
    uint8_t choice = next8();
    if (choice % 8 == 0) {
        stop();
        REQUIRE(forked || atomic_load(word) != before);
    } else if (choice % 8 > 1) {
        if (!free_frame())
            drop_oldest();
        int took = take_frame();
        if (took == 1 && choice & 16)
            drop_oldest();
        if (took <= 0)
            drop_oldest();
        if (reader->first == reader->next && took <= 0)
            reader_look(reader);
        /* Room that is given back wakes who waits for it. */
        if (reader->ring.tail != tail && !forked)
            REQUIRE(atomic_load(word) != before && world.wakes != wakes);
        if (took < 0 || forked)
            atomic_store(&reader->ring.host->stop, 1), stopped = true;
    }
    if (program == program_end && atomic_load(word) == before)
        atomic_store(&reader->ring.host->stop, 1), stopped = true;
}

void end_releaser(void)
{
    slot->releaser->ending = true;
}

/* ---- the plugin's side ------------------------------------------------------------------------------------------------- */

static const uint32_t lengths[] = {0, 1, 32, 63, 64, 65, 31, 20};

static uint64_t payload_length(void)
{
    uint16_t word = next16();
    if ((word & 0xc000) == 0xc000)
        return word >= 0xff00 ? sink_max_payload(slot) + (word & 0xff) - 0x80 : CAPACITY / 8 + (word & 0x3fff) * 3u;
    return word & 0x8000 ? word & 0xfff : word & 0xff;
}

/* A block of chosen shape. flaw: one member that the sink has to refuse, by number; 0: none. */
static struct supervm_block_1 make_block(struct said *said, uint64_t length, uint8_t flaw)
{
    uint8_t shape = next8();
    *said = (struct said){
        .kind = RECORD_BLOCK,
        .payload_length = length,
        .height = shape & 1 ? SUPERVM_HEIGHT_UNKNOWN : serial,
        .final_height = shape & 2 ? SUPERVM_HEIGHT_UNKNOWN : serial / 2,
        .time = shape & 4 ? SUPERVM_TIME_UNKNOWN : (int64_t)serial * 7,
        .hash_length = (uint8_t)(lengths[shape >> 5] & 63),
        .parent_length = shape & 8 ? 32 : 0,
        .position_length = shape & 16 ? (uint16_t)(serial % (SUPERVM_MAX_POSITION_BYTES + 1)) : 0,
        .has_weight = (shape & 24) == 24,
        .serial = serial,
    };
    struct supervm_block_1 block = {
        .struct_size = sizeof block,
        .height = said->height,
        .final_height = said->final_height,
        .time = said->time,
        .hash = bytes_of(serial, 1),
        .hash_length = said->hash_length,
        .parent = bytes_of(serial, 2),
        .parent_length = said->parent_length,
        .weight = said->has_weight ? bytes_of(serial, 3) : NULL,
        .position = said->position_length ? bytes_of(serial, 4) : NULL,
        .position_length = said->position_length,
        .payload = bytes_of(serial, 0),
        .payload_length = length,
    };
    serial++;
    switch (flaw) {
    case 1: block.struct_size--; break;
    case 2: block.flags = 1; break;
    case 3: block.reserved = 1; break;
    case 4: block.hash_length = SUPERVM_MAX_HASH_BYTES + 1; break;
    case 5: block.hash = NULL, block.hash_length = 1; break;
    case 6: block.parent_length = UINT32_MAX; break;
    case 7: block.position_length = SUPERVM_MAX_POSITION_BYTES + 1; break;
    case 8: block.position = NULL, block.position_length = 1; break;
    default: break;
    }
    return block;
}

static bool may_publish(void)
{
    return slot && (slot_grants(slot) & (SLOT_OPEN | SLOT_BLOCK_STREAM)) == (SLOT_OPEN | SLOT_BLOCK_STREAM);
}

/* What a call that says something may answer. */
static void check_status(int32_t status, bool waits, bool flawed)
{
    if (flawed)
        REQUIRE(status != SUPERVM_OK);
    if (status == SUPERVM_OK)
        REQUIRE(may_publish());
    if (status == SUPERVM_STOPPING)
        REQUIRE(stopped || forked || !(slot_grants(slot) & SLOT_OPEN));
    if (status == SUPERVM_NOT_GRANTED)
        REQUIRE(!(slot_grants(slot) & SLOT_BLOCK_STREAM));
    if (status == SUPERVM_WOULD_BLOCK)
        REQUIRE(!waits);
    REQUIRE(status <= 0 && status >= SUPERVM_NO_MEMORY);
}

static void publish(bool wait, uint8_t flaw)
{
    const struct supervm_block_sink_1 *sink = &slot->block_sink;
    struct said said;
    uint64_t length = payload_length();
    struct supervm_block_1 block = make_block(&said, length, flaw);
    if (flaw == 9)
        block.payload = NULL, block.payload_length = 1;
    if (flaw == 14)
        block.payload = NULL, block.payload_length = said.payload_length = length = 0;
    bool flawed = (flaw > 0 && flaw < 10) || flaw == 11 || length > sink->max_payload;
    void *host = flaw == 11 ? (uint8_t *)sink->host + 1 : sink->host;
    int32_t status = (wait ? sink->publish : sink->try_publish)(host, flaw == 10 ? NULL : &block);
    check_status(status, wait, flawed || flaw == 10);
    if (status == SUPERVM_OK)
        expect(&said);
}

static void reserve_and_commit(bool wait, uint8_t flaw, uint8_t how)
{
    const struct supervm_block_sink_1 *sink = &slot->block_sink;
    uint64_t length = payload_length();
    uint8_t *payload = NULL;
    int32_t status = (wait ? sink->reserve : sink->try_reserve)(sink->host, length, flaw == 12 ? NULL : &payload);
    check_status(status, wait, flaw == 12 || length > sink->max_payload);
    if (status != SUPERVM_OK)
        return;
    /* A second one of the same thread is answered. */
    uint8_t *second;
    REQUIRE(sink->reserve(sink->host, 1, &second) == (stopped && !forked ? SUPERVM_STOPPING : SUPERVM_BUSY) || stopped);
    REQUIRE(slot_sink_is_busy(slot));
    if (how & 1)
        take_frame();
    if (how & 2)
        stop();
    struct said said;
    uint64_t used = how & 4 ? length / 2 : length;
    struct supervm_block_1 block = make_block(&said, used, flaw);
    memcpy(payload, bytes_of(said.serial, 0), length);
    if (how & 8) {
        REQUIRE(sink->abandon(sink->host) == SUPERVM_OK);
    } else {
        if (flaw == 9)
            block.payload_length = length + 1;
        status = sink->commit(sink->host, flaw == 10 ? NULL : &block);
        check_status(status, true, flaw > 0 && flaw < 11);
        if (status == SUPERVM_OK)
            expect(&said);
    }
    REQUIRE(sink->commit(sink->host, &block) == SUPERVM_WRONG_STATE);
}

static void publish_release(uint8_t flaw)
{
    const struct supervm_block_sink_1 *sink = &slot->block_sink;
    struct said said;
    if (adversarial || external_said == MOST_PENDING)
        return; /* A pointer in shared memory is believed only where the plugin shares the process. */
    uint64_t length = payload_length();
    struct supervm_block_1 block = make_block(&said, length < CAPACITY ? length : CAPACITY, flaw);
    said.payload_length = block.payload_length;
    said.external = true;
    if (flaw == 9)
        block.payload = NULL, block.payload_length = 1;
    if (flaw == 13) {
        REQUIRE(sink->publish_release(sink->host, &block, NULL, NULL) == SUPERVM_INVALID_ARGUMENT);
        return;
    }
    uint32_t *word = &outstanding[external_said++];
    *word = 1;
    int32_t status = sink->publish_release(sink->host, &block, release, word);
    check_status(status, true, flaw > 0 && flaw < 10);
    if (status == SUPERVM_OK)
        expect(&said);
    else
        REQUIRE(*word == 0);
}

static void say_reorg(uint8_t flaw)
{
    const struct supervm_block_sink_1 *sink = &slot->block_sink;
    uint32_t length = lengths[next8() % 5];
    uint64_t count = flaw == 9 ? UINT64_MAX / 2 : next16() & 0x7ff;
    struct said said = {
        .kind = RECORD_REORG,
        .payload_length = count * length,
        .height = serial + 5,
        .to_height = serial,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
        .item_length = (uint8_t)length,
        .position_length = (uint16_t)(serial % 9),
        .serial = serial,
    };
    struct supervm_reorg_1 reorg = {
        .struct_size = sizeof reorg,
        .orphan_length = length,
        .from_height = said.height,
        .to_height = said.to_height,
        .orphans = bytes_of(serial, 0),
        .orphan_count = count,
        .position = bytes_of(serial, 4),
        .position_length = said.position_length,
    };
    serial++;
    switch (flaw) {
    case 1: reorg.struct_size--; break;
    case 2: reorg.reserved = 1; break;
    case 3: reorg.orphan_length = SUPERVM_MAX_HASH_BYTES + 1; break;
    case 4: reorg.from_height = reorg.to_height - 1; break;
    case 5: reorg.from_height = SUPERVM_HEIGHT_UNKNOWN; break;
    case 6: reorg.position_length = SUPERVM_MAX_POSITION_BYTES + 1; break;
    case 7: reorg.orphans = NULL, reorg.orphan_count = 1; break;
    case 8: reorg.orphan_length = 0, reorg.orphan_count = 1; break;
    default: break;
    }
    bool flawed = (flaw > 0 && flaw < 11) || (count != 0 && length == 0);
    int32_t status = sink->reorg(sink->host, flaw == 10 ? NULL : &reorg);
    check_status(status, true, flawed);
    if (status == SUPERVM_OK)
        expect(&said);
}

static void say_less(uint8_t flaw)
{
    const struct supervm_block_sink_1 *sink = &slot->block_sink;
    struct said said = {.height = SUPERVM_HEIGHT_UNKNOWN, .final_height = SUPERVM_HEIGHT_UNKNOWN, .time = SUPERVM_TIME_UNKNOWN};
    int32_t status;
    said.serial = serial++;
    if (flaw & 1) {
        said.kind = RECORD_END_OF_INPUT;
        status = sink->end_of_input(sink->host);
        check_status(status, true, false);
    } else {
        uint32_t length = lengths[next8() % 8];
        said.kind = RECORD_FINALIZED;
        said.hash_length = (uint8_t)length;
        if (flaw & 2)
            said.height = said.serial;
        status = sink->finalized(sink->host, bytes_of(said.serial, 1), length, said.height);
        check_status(status, true, length > SUPERVM_MAX_HASH_BYTES || (length == 0 && !(flaw & 2)));
    }
    if (status == SUPERVM_OK)
        expect(&said);
}

static void say_beside(uint8_t flaw)
{
    const struct supervm_host_vtable *vtable = &slot->vtable;
    struct message said = {.serial = serial++, .script = flaw >> 7 ? next8() % 3 : 0};
    bool open = slot_grants(slot) & SLOT_OPEN;
    uint64_t dropped = atomic_load(&channel_words(slot->channel)->dropped_messages);
    int32_t status;
    size_t length = next16() % (flaw & 1 ? SUPERVM_MAX_LOG_BYTES * 2 : 64);
    switch (flaw >> 1 & 3) {
    case 0:
        said.kind = MESSAGE_LOG;
        said.level = flaw % 13 - 4;
        vtable->host_log(said.level, flaw & 16 ? NULL : text_of(&said, length));
        said.level = said.level < SUPERVM_LOG_TRACE ? SUPERVM_LOG_TRACE : said.level > SUPERVM_LOG_ERROR ? SUPERVM_LOG_ERROR : said.level;
        said.text_length = text_taken(&said, length, SUPERVM_MAX_LOG_BYTES);
        status = !open || flaw & 16 ? SUPERVM_INVALID_ARGUMENT
                 : atomic_load(&channel_words(slot->channel)->dropped_messages) != dropped ? SUPERVM_QUEUE_FULL : SUPERVM_OK;
        break;
    case 1:
        said.kind = MESSAGE_METRIC;
        said.value = serial * 0.5;
        status = vtable->host_report_metric(flaw & 16 ? NULL : text_of(&said, length), said.value);
        said.text_length = text_taken(&said, length, SUPERVM_MAX_METRIC_NAME_BYTES);
        if (flaw & 16 || length == 0)
            REQUIRE(status != SUPERVM_OK);
        break;
    case 2:
        said.kind = MESSAGE_TRANSACTION;
        said.text_length = (uint32_t)length;
        said.data_length = flaw & 32 ? CAPACITY / (flaw & 64 ? 1 : 3) : next16() % 512;
        if ((flaw & 96) == 64)
            said.data_length = SLOT_MAX_TRANSACTION_BYTES + 1;
        status = vtable->host_submit_tx(flaw & 16 ? NULL : text_of(&said, length), flaw & 8 ? NULL : bytes_of(said.serial, 1),
                                        said.data_length);
        if (status == SUPERVM_OK)
            REQUIRE(length > 0 && length <= SLOT_MAX_CHAIN_BYTES && said.data_length > 0 && !(flaw & 24));
        break;
    default:
        status = vtable->host_request_shutdown(flaw);
        REQUIRE(lied || status == SUPERVM_OK ? lied || atomic_load(&channel_words(slot->channel)->shutdown) & PLUGIN_SHUTDOWN_ASKED : status == SUPERVM_STOPPING);
        return;
    }
    if (status != SUPERVM_OK)
        return;
    REQUIRE(open && message_next - message_first < MOST_MESSAGES);
    messages[message_next++ % MOST_MESSAGES] = said;
}

static void ask(uint8_t what)
{
    static const char *const ids[] = {SUPERVM_BLOCK_SINK_1, SUPERVM_RESUME_1, SUPERVM_CONFIG_1, SUPERVM_HEARTBEAT_1, "another", NULL};
    uint32_t grants = slot_grants(slot);
    const char *json;
    const uint8_t *bytes;
    uint64_t length;
    switch (what % 5) {
    case 0: {
        const void *found = slot->vtable.host_get_extension(ids[what / 5 % 6]);
        if (found == &slot->block_sink || found == &slot->resume)
            REQUIRE(grants & SLOT_BLOCK_STREAM);
        if (found)
            REQUIRE(grants & SLOT_OPEN);
        break;
    }
    case 1:
        if (slot->config.get(what & 64 ? NULL : slot, what & 32 ? NULL : &json, what & 128 ? NULL : &length) == SUPERVM_OK)
            REQUIRE(length == 2 && memcmp(json, "{}", 3) == 0);
        break;
    case 2:
        if (slot->resume.position(what & 64 ? NULL : slot, what & 32 ? NULL : &bytes, what & 128 ? NULL : &length) == SUPERVM_OK)
            REQUIRE(length == 4 && memcmp(bytes, "here", 5) == 0);
        break;
    case 3:
        if (slot->heartbeat.beat(what & 64 ? (uint8_t *)slot + 1 : (void *)slot) == SUPERVM_OK)
            REQUIRE(grants & SLOT_OPEN);
        break;
    default:
        REQUIRE((lied || channel_last_sign(slot->channel) > 0) && slot_used_count() == 1 && slot_number(slot) == 0);
        channel_notify(slot->channel);
        break;
    }
}

/* ---- between the two --------------------------------------------------------------------------------------------------- */

/* Any of the words that the plugin writes. */
static void lie_in_a_word(struct ring_producer_page *page, uint8_t which)
{
    uint64_t value = next64();
    switch (which % 9) {
    case 0: atomic_store(&page->woken, value); break;
    case 1: atomic_store(&page->waits, value); break;
    case 2: atomic_store(&page->wakeups, value); break;
    case 3: atomic_store(&page->words.last_sign, (int64_t)value); break;
    case 4: atomic_store(&page->words.shutdown, value); break;
    case 5: atomic_store(&page->words.dropped_messages, value); break;
    case 6: atomic_store(&page->words.heartbeat_asked, (uint32_t)value); break;
    case 7: atomic_store(&page->words.lock_waiters, (uint32_t)value); break;
    default: atomic_store(&page->words.notice, (uint32_t)value); break;
    }
}

static void lie(uint8_t where)
{
    if (!adversarial)
        return;
    lies++;
    struct ring *ring = where & 1 ? &slot->side->ring : &reader->ring;
    struct ring_producer_page *page = ring->producer;
    if (where & 1)
        side_lied = true;
    else
        lied = true;
    switch (where >> 1 & 7) {
    case 0: atomic_store(&page->head, next64()); break;
    case 1: atomic_fetch_add(&page->head, (uint64_t)(int64_t)(int8_t)next8() * 32); break;
    case 2: atomic_store(&page->wanted, next64()); break;
    case 3: atomic_store(&page->waiting, next8()); break;
    case 4:
        lied = true; /* What the host is told beside the rings lies with the block ring. */
        lie_in_a_word(page, next8());
        break;
    case 5: { /* A member of the next record's header. */
        uint8_t *record = ring_at(ring, ring->read_position) + (where >> 4) * 4;
        uint32_t value = next8() & 1 ? next16() : (uint32_t)next64();
        memcpy(record, &value, sizeof value);
        break;
    }
    case 6: ring->data[next16() % CAPACITY] = next8(); break;
    default: { /* A whole header, nearly right, and perhaps published. */
        struct record_header header = {
            .total_length = RING_ALIGNMENT * (1 + next8() % 16u),
            .kind = (uint16_t)(next8() % 6),
            .flags = next8() % 16 == 0,
            .hash_length = (uint8_t)(next8() % (SUPERVM_MAX_HASH_BYTES + 2)),
            .parent_length = (uint8_t)(next8() % (SUPERVM_MAX_HASH_BYTES + 2)),
            .weight_length = (uint8_t)(next8() % 3 * 16),
            .position_length = next16() % (SUPERVM_MAX_POSITION_BYTES + 2),
            .item_length = next8() % 8 == 0 ? next8() : 0,
        };
        header.payload_length = header.total_length - sizeof header - next8();
        memcpy(ring_at(ring, ring->read_position), &header, sizeof header);
        if (next8() & 1)
            atomic_store(&page->head, ring->read_position + header.total_length);
    }
    }
}

static bool is_shared(const struct ring *ring, const uint8_t *place)
{
    return place >= ring->area && place < ring->area + ring->area_bytes;
}

void just_copied(const uint8_t *from)
{
    if (!adversarial || !reading || !(is_shared(&reader->ring, from) || is_shared(&slot->side->ring, from)))
        return;
    uint8_t choice = next8();
    if (choice & 1) {
        lies_between++;
        lie(next8());
    }
}

static void wait_and_finish(uint8_t how)
{
    uint64_t rings = world.rings;
    bool announced = channel_prepare_wait(slot->channel);
    if (announced) {
        REQUIRE(lied || pending_first == pending_next);
        REQUIRE(doorbell_announced(&reader->bell));
        if (how & 1) {
            uint64_t said = pending_next;
            publish(false, 0);
            if (pending_next != said && !lied)
                REQUIRE(world.rings > rings); /* Nobody sleeps through a publish. */
        }
        if (how & 2)
            channel_notify(slot->channel);
        if (how & 4) {
            struct held *held = chosen_frame();
            if (held)
                drop_frame(held);
        }
        if (how & 8)
            publish(false, 0);
    }
    channel_finish_wait(slot->channel);
    REQUIRE(world.rings == 0 && !doorbell_announced(&reader->bell));
}

/* Another thread of the plugin holds the lock while this one calls. */
static void held_lock(uint8_t how)
{
    atomic_store(&slot->lock.owner, ANOTHER_THREAD);
    if (how & 1)
        publish(how & 2, 0);
    else if (how & 4)
        REQUIRE(slot->block_sink.commit(slot->block_sink.host, NULL) == SUPERVM_WRONG_STATE);
    else
        REQUIRE(slot->block_sink.abandon(NULL) == SUPERVM_INVALID_ARGUMENT);
    if (how & 32) { /* A signal handler's call: this thread is inside already. */
        atomic_store(&slot->lock.owner, (uint64_t)(uintptr_t)pthread_self());
        REQUIRE(slot->block_sink.abandon(slot->block_sink.host) == SUPERVM_BUSY);
    }
    atomic_store(&slot->lock.owner, 0);
    atomic_store(&slot->side->lock.owner, how & 8 ? ANOTHER_THREAD : 0);
    say_beside((uint8_t)(how & ~8));
    atomic_store(&slot->side->lock.owner, how & 16 ? (uint64_t)(uintptr_t)pthread_self() : 0);
    say_beside((uint8_t)(how & ~16));
    atomic_store(&slot->side->lock.owner, 0);
}

static void detach(void)
{
    uint64_t kept = reader_detach(reader);
    pending_first = pending_next; /* What was unread is gone. */
    frames_read = reader->frames;
    bytes_read = reader->bytes;
    for (int i = 0; i < MOST_FRAMES; i++) {
        if (!frames[i].used)
            continue;
        if (frames[i].core.external)
            REQUIRE(kept > 0);
        else if (frames[i].core.in_place)
            REQUIRE(frames[i].core.exports > 0 || world.fail_in == 0);
        check_frame(&frames[i]);
    }
}

static void operate(void)
{
    operations++;
    operations_of_liars += adversarial;
    uint8_t operation = next8(), flaw = operation >> 7 ? next8() % 16 : 0;
    struct held *held;
    switch (operation % 23) {
    case 0: case 1: publish(false, flaw); break;
    case 2: publish(true, flaw); break;
    case 3: case 4: reserve_and_commit(operation & 32, flaw, next8()); break;
    case 5: publish_release(flaw); break;
    case 6: say_reorg(flaw); break;
    case 7: say_less(next8()); break;
    case 8: case 9: take_frame(); break;
    case 10: take_batch(); break;
    case 11:
        if ((held = chosen_frame()) && frame_pin(&held->core))
            check_frame(held);
        break;
    case 12:
        if ((held = chosen_frame()) && held->core.exports)
            frame_unpin(&held->core);
        break;
    case 13: case 14:
        if ((held = chosen_frame()) && !held->core.exports)
            drop_frame(held);
        break;
    case 15: wait_and_finish(next8()); break;
    case 16: say_beside(next8()); break;
    case 17: take_message(); break;
    case 18: case 19: lie(next8()); break;
    case 20: ask(next8()); break;
    case 21: held_lock(next8()); break;
    default:
        switch (next8() % 8) {
        case 0: stop(); break;
        case 1: detach(); break;
        case 2: world.fail_in = next8() % 4; break;
        case 3: /* As a forked child sees it. */
            if (adversarial)
                break;
            ring_forks++;
            forked = true;
            break;
        case 4: slot_close(slot); break;
        default: drop_oldest(); break;
        }
    }
}

/* ---- one input --------------------------------------------------------------------------------------------------------- */

static bool begin(uint8_t world_kind, uint8_t failure)
{
    static const uint64_t capacities[] = {CAPACITY, CAPACITY, CAPACITY, CAPACITY, CAPACITY + 1, 0, CAPACITY / 2, RING_MAXIMUM_CAPACITY * 2};
    uint8_t refused = world_kind >> 2 & 1 ? failure >> 5 : 0;
    bool full = failure == 0xff;
    world.fail_in = failure & 16 ? failure & 15 : 0;
    for (int i = 0; i < SLOT_COUNT; i++)
        slot_table[i].used = full;
    slot = slot_take(capacities[refused], CAPACITY, 1, 1000);
    for (int i = 1; i < SLOT_COUNT; i++)
        slot_table[i].used = false;
    world.fail_in = 0;
    if (!slot) {
        slot_table[0].used = false;
        return false;
    }
    REQUIRE(refused < 4 && !full);
    reader = slot->channel->reader;
    atomic_store(&slot->ring->host->route, world_kind >> 3 & 1);
    if (world_kind & 1)
        world.fail_in = world_kind >> 6;
    uint32_t grants = world_kind & 16 ? 0 : SLOT_BLOCK_STREAM | SLOT_SUBMIT_TX;
    if (world_kind & 32 || slot_grant(slot, grants, "{}", 2, (const uint8_t *)(world_kind & 2 ? NULL : "here"), 4) != 0)
        REQUIRE(!(slot_grants(slot) & SLOT_OPEN));
    world.fail_in = 0;
    if (adversarial) { /* As if the plugin were another process. */
        reader->releaser = NULL;
        reader->landing.bytes = system_malloc(CAPACITY);
        area = reader->ring.area;
        area_end = area + reader->ring.area_bytes;
    }
    return true;
}

static void finish(uint8_t how)
{
    world.fail_in = 0;
    stop();
    slot_close(slot);
    for (int i = 0; i < MOST_FRAMES; i++)
        while (frames[i].used && frames[i].core.external && frames[i].core.exports)
            frame_unpin(&frames[i].core);
    detach();
    check_counts();
    if (how & 1)
        for (int i = 0; i < MOST_FRAMES; i++)
            if (frames[i].used)
                drop_frame(&frames[i]);
    world.stuck = how & 2;
    if (world.stuck)
        REQUIRE(!releaser_finish(slot->releaser, 1000) || !world.thread_exists);
    world.stuck = false;
    if (how & 4)
        system_run_thread();
    REQUIRE(releaser_finish(slot->releaser, INT64_C(1000000000000)));
    slot_give_back(slot);
    slot = NULL;
    for (int i = 0; i < MOST_FRAMES; i++) {
        if (!frames[i].used)
            continue;
        drop_frame(&frames[i]);
        check_counts();
    }
}

static void tell(void)
{
    fprintf(stderr, "counted::operations: %" PRIu64 "\ncounted::operations_of_liars: %" PRIu64 "\n", operations, operations_of_liars);
    fprintf(stderr, "counted::lies: %" PRIu64 "\ncounted::lies_while_the_host_reads: %" PRIu64 "\n", lies, lies_between);
}

int LLVMFuzzerInitialize(int *count, char ***values)
{
    atexit(tell);
    uint64_t state = 88172645463325252u; /* xorshift: bytes that do not repeat, and no zero, which would end a text. */
    for (size_t i = 0; i < sizeof pattern; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        pattern[i] = (uint8_t)(state % 127 + 1);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    program = data;
    program_end = data + size;
    system_reset();
    memset(frames, 0, sizeof frames);
    pending_first = pending_next = message_first = message_next = 0;
    external_said = external_released = frames_read = bytes_read = 0;
    serial = 0;
    slot = NULL;
    reader = NULL;
    lied = side_lied = stopped = forked = false;

    uint8_t world_kind = next8(), failure = next8(), end = next8();
    adversarial = end & 128;
    world.maps = (end & 0x78) == 0x78;
    if (begin(world_kind, failure)) {
        while (program < program_end) {
            operate();
            check_counts();
        }
        finish(end);
    }
    if (forked) {
        ring_forks = 0;
        system_free_all(); /* A forked child has no releaser to give payloads back to. */
    } else {
        REQUIRE(external_released == external_said);
    }
    REQUIRE(world.allocations == 0 && world.mappings == 0 && world.descriptors == 0 && !world.thread_exists);
    return 0;
}
