#include "message.h"

#include <string.h>

#include "supervm/block_sink.h"

enum wire_type { VARINT = 0, FIXED64 = 1, LENGTH = 2, GROUP = 3, GROUP_END = 4, FIXED32 = 5 };

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
    enum message_fault fault;
    int depth; /* How many submessages and groups may be entered yet. */
};

struct field {
    uint32_t number;
    uint32_t type;
    uint64_t value;    /* VARINT. */
    struct span bytes; /* LENGTH. */
};

static inline struct cursor cursor_of(struct span span, int depth)
{
    return (struct cursor){.at = span.bytes, .end = span.bytes + span.length, .depth = depth};
}

static inline bool fail(struct cursor *cursor, enum message_fault fault)
{
    cursor->fault = fault;
    return false;
}

/* A number of at most so many bytes; what does not fit 64 bits is cut off, and longer spellings than need be are allowed. */
static inline bool take_varint(struct cursor *cursor, unsigned most, uint64_t *value)
{
    const uint8_t *at = cursor->at;
    if (at < cursor->end && *at < 0x80) {
        *value = *at;
        cursor->at = at + 1;
        return true;
    }
    uint64_t taken = 0;
    for (unsigned i = 0; i < most; i++) {
        if (at == cursor->end)
            return fail(cursor, MESSAGE_ENDS_EARLY);
        taken |= (uint64_t)(*at & 0x7f) << (7 * i);
        if (*at++ < 0x80) {
            *value = taken;
            cursor->at = at;
            return true;
        }
    }
    return fail(cursor, MESSAGE_LONG_VARINT);
}

static inline bool take_tag(struct cursor *cursor, struct field *field)
{
    uint64_t tag;
    if (!take_varint(cursor, 5, &tag))
        return false;
    field->number = (uint32_t)(tag >> 3);
    field->type = tag & 7;
    field->value = 0;
    field->bytes = (struct span){NULL, 0};
    if (tag > UINT32_MAX || field->number == 0 || field->type > FIXED32)
        return fail(cursor, MESSAGE_BAD_TAG);
    return true;
}

static inline bool skip(struct cursor *cursor, size_t length)
{
    if (length > (size_t)(cursor->end - cursor->at))
        return fail(cursor, MESSAGE_ENDS_EARLY);
    cursor->at += length;
    return true;
}

/* Behind the tag of any field but the end of a group. A group is left where it begins. */
static inline bool take_value(struct cursor *cursor, struct field *field)
{
    switch (field->type) {
    case VARINT: return take_varint(cursor, 10, &field->value);
    case FIXED64: return skip(cursor, 8);
    case FIXED32: return skip(cursor, 4);
    case LENGTH: {
        uint64_t length;
        if (!take_varint(cursor, 5, &length))
            return false;
        field->bytes = (struct span){cursor->at, length};
        return skip(cursor, length);
    }
    default: return true;
    }
}

/* Behind the begin of a group: past its end. */
static bool skip_group(struct cursor *cursor, uint32_t number)
{
    uint32_t open[MESSAGE_MAX_DEPTH];
    int most = cursor->depth, count = 0;
    if (most == 0)
        return fail(cursor, MESSAGE_TOO_DEEP);
    open[count++] = number;
    while (count > 0) {
        struct field field;
        if (cursor->at == cursor->end)
            return fail(cursor, MESSAGE_ENDS_EARLY);
        if (!take_tag(cursor, &field))
            return false;
        if (field.type == GROUP_END) {
            if (field.number != open[--count])
                return fail(cursor, MESSAGE_BAD_GROUP);
        } else if (field.type == GROUP) {
            if (count == most)
                return fail(cursor, MESSAGE_TOO_DEEP);
            open[count++] = field.number;
        } else if (!take_value(cursor, &field)) {
            return false;
        }
    }
    return true;
}

/* The next field. Groups, which are no field of ours, are skipped over. false: the end, or a fault. */
static inline bool next_field(struct cursor *cursor, struct field *field)
{
    while (cursor->at != cursor->end) {
        if (!take_tag(cursor, field))
            return false;
        if (field->type == GROUP) {
            if (!skip_group(cursor, field->number))
                return false;
            continue;
        }
        if (field->type == GROUP_END)
            return fail(cursor, MESSAGE_BAD_GROUP);
        return take_value(cursor, field);
    }
    return false;
}

/* ---- text ---------------------------------------------------------------------------------------------------------------- */

static inline bool continues(const uint8_t *at, uint8_t low, uint8_t high)
{
    return at[0] >= low && at[0] <= high;
}

static bool is_utf8(struct span text)
{
    const uint8_t *at = text.bytes, *end = at + text.length;
    while (at != end) {
        if (end - at >= 8) {
            uint64_t word;
            memcpy(&word, at, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                at += 8;
                continue;
            }
        }
        uint8_t first = *at;
        if (first < 0x80) {
            at++;
            continue;
        }
        ptrdiff_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        /* No spelling that is longer than need be, no surrogate, nothing above U+10FFFF. */
        if (first < 0xc2 || first > 0xf4 || end - at < length)
            return false;
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (!continues(at + 1, low, high))
            return false;
        for (ptrdiff_t i = 2; i < length; i++)
            if (!continues(at + i, 0x80, 0xbf))
                return false;
        at += length;
    }
    return true;
}

static inline bool take_text(struct cursor *cursor, struct span text)
{
    if (is_utf8(text))
        return true;
    cursor->at = text.bytes;
    return fail(cursor, MESSAGE_NOT_UTF8);
}

/* ---- what is only checked ------------------------------------------------------------------------------------------------ */

/* What a submessage has that may be wrong beside its fields' framing: texts, and further submessages. */
struct shape_field {
    uint32_t number;
    const struct shape *submessage; /* NULL: a text. */
};

struct shape {
    size_t count;
    const struct shape_field *fields;
};

#define SHAPE(...)                                                                                                              \
    {                                                                                                                           \
        sizeof((struct shape_field[]){__VA_ARGS__}) / sizeof(struct shape_field), (const struct shape_field[]){__VA_ARGS__}     \
    }

static const struct shape plain = {0, NULL};
static const struct shape message_shape;
static const struct shape input_shape = {0, NULL};
static const struct shape output_shape = SHAPE({1, NULL}, {3, NULL});
static const struct shape transaction_shape = SHAPE({11, &input_shape}, {12, &output_shape});
static const struct shape ir_shape = SHAPE({1, NULL}, {2, NULL}, {8, &transaction_shape}, {16, &plain});
static const struct shape batch_shape = SHAPE({1, &message_shape});
static const struct shape reorg_shape = SHAPE({1, NULL});
static const struct shape text_1 = SHAPE({1, NULL});
static const struct shape text_2 = SHAPE({2, NULL});
static const struct shape submitted_shape = SHAPE({2, NULL}, {3, NULL});
static const struct shape rpc_request_shape = SHAPE({2, NULL}, {3, NULL});
static const struct shape rpc_error_shape = SHAPE({2, NULL}, {3, NULL});
static const struct shape rpc_answer_shape = SHAPE({2, NULL}, {3, &rpc_error_shape});
static const struct shape archive_answer_shape = SHAPE({2, &message_shape}, {4, NULL});

static const struct shape *const bodies[] = {
    &reorg_shape,     /* 20 reorg */
    &plain,           /* 21 finalized */
    &plain,           /* 22 end_of_input */
    &batch_shape,     /* 23 batch */
    &text_2,          /* 24 log */
    &text_1,          /* 25 metric */
    &plain,           /* 26 beat */
    &text_1,          /* 27 submit */
    &submitted_shape, /* 28 submitted */
    &plain,           /* 29 shutdown */
    &plain,           /* 30 acknowledge */
    &plain,           /* 31 credit */
    &text_1,          /* 32 stop */
    &rpc_request_shape,
    &rpc_answer_shape,
    &plain, /* 35 archive_request */
    &archive_answer_shape,
    &plain, /* 37 cancel */
};

static const struct shape message_shape =
    SHAPE({1, NULL}, {4, NULL}, {5, &plain}, {9, NULL}, {13, &ir_shape}, {20, &reorg_shape}, {21, &plain}, {22, &plain},
          {23, &batch_shape}, {24, &text_2}, {25, &text_1}, {26, &plain}, {27, &text_1}, {28, &submitted_shape}, {29, &plain},
          {30, &plain}, {31, &plain}, {32, &text_1}, {33, &rpc_request_shape}, {34, &rpc_answer_shape}, {35, &plain},
          {36, &archive_answer_shape}, {37, &plain});

_Static_assert(sizeof bodies / sizeof *bodies == MESSAGE_LAST_BODY - MESSAGE_REORG + 1, "one for each body");

/* Checks a submessage that nothing is read from. */
static bool check(struct cursor *outer, struct span bytes, const struct shape *shape)
{
    if (outer->depth == 0)
        return fail(outer, MESSAGE_TOO_DEEP);
    struct cursor cursor = cursor_of(bytes, outer->depth - 1);
    struct field field;
    while (next_field(&cursor, &field)) {
        if (field.type != LENGTH)
            continue;
        for (size_t i = 0; i < shape->count; i++) {
            if (shape->fields[i].number != field.number)
                continue;
            const struct shape *inner = shape->fields[i].submessage;
            if (!(inner ? check(&cursor, field.bytes, inner) : take_text(&cursor, field.bytes)))
                break;
        }
        if (cursor.fault)
            break;
    }
    if (!cursor.fault)
        return true;
    outer->at = cursor.at;
    return fail(outer, cursor.fault);
}

/* ---- what is read -------------------------------------------------------------------------------------------------------- */

struct time {
    int64_t seconds;
    int32_t nanos;
    bool said;
};

static inline bool enter(struct cursor *outer, struct span bytes, struct cursor *inner)
{
    if (outer->depth == 0)
        return fail(outer, MESSAGE_TOO_DEEP);
    *inner = cursor_of(bytes, outer->depth - 1);
    return true;
}

static inline bool leave(struct cursor *outer, const struct cursor *inner)
{
    if (!inner->fault)
        return true;
    outer->at = inner->at;
    return fail(outer, inner->fault);
}

static bool take_time(struct cursor *outer, struct span bytes, struct time *time)
{
    struct cursor cursor;
    struct field field;
    if (!enter(outer, bytes, &cursor))
        return false;
    time->said = true;
    while (next_field(&cursor, &field)) {
        if (field.type != VARINT)
            continue;
        if (field.number == 1)
            time->seconds = (int64_t)field.value;
        else if (field.number == 2)
            time->nanos = (int32_t)(uint32_t)field.value;
    }
    return leave(outer, &cursor);
}

/* Reorg and finalized; the pieces of one are read one after another into the same place. */
static bool take_reorg(struct cursor *outer, struct span bytes, struct message *message, bool *alike)
{
    struct cursor cursor;
    struct field field;
    if (!enter(outer, bytes, &cursor))
        return false;
    while (next_field(&cursor, &field)) {
        if (field.number == 1 && field.type == LENGTH) {
            message->reorg_chain = field.bytes;
            if (!take_text(&cursor, field.bytes))
                break;
        } else if (field.number == 2 && field.type == VARINT) {
            message->from_height = field.value;
        } else if (field.number == 3 && field.type == VARINT) {
            message->to_height = field.value;
        } else if (field.number == 4 && field.type == LENGTH) {
            if (message->orphan_count++ == 0)
                *alike = field.bytes.length != 0 && field.bytes.length <= SUPERVM_MAX_HASH_BYTES;
            if (!*alike)
                continue;
            if (message->orphan_count == 1)
                message->orphan_length = (uint32_t)field.bytes.length;
            else
                *alike = field.bytes.length == message->orphan_length;
        }
    }
    return leave(outer, &cursor);
}

static bool take_finalized(struct cursor *outer, struct span bytes, struct message *message)
{
    struct cursor cursor;
    struct field field;
    if (!enter(outer, bytes, &cursor))
        return false;
    while (next_field(&cursor, &field)) {
        if (field.number == 1 && field.type == VARINT)
            message->finalized_height = field.value;
        else if (field.number == 2 && field.type == LENGTH)
            message->finalized_hash = field.bytes;
    }
    return leave(outer, &cursor);
}

/* A batch that another body took the place of is not read any more, and is checked here. */
static bool check_batch(struct cursor *cursor, const struct message *message, const uint8_t *end)
{
    struct message replaced = *message;
    const uint8_t *place = NULL;
    struct span piece;
    replaced.whole.length = (size_t)(end - replaced.whole.bytes);
    while (message_piece(&replaced, &place, &piece))
        if (!check(cursor, piece, &batch_shape))
            return false;
    return true;
}

static bool take_body(struct cursor *cursor, const struct field *field, const uint8_t *tag, struct message *message, bool *alike)
{
    if (field->number != message->body) {
        if (message->body == MESSAGE_BATCH && !check_batch(cursor, message, tag))
            return false;
        message->body = field->number;
        message->body_begin = tag;
        message->reorg_chain = message->finalized_hash = (struct span){NULL, 0};
        message->from_height = message->to_height = message->finalized_height = 0;
        message->orphan_count = message->orphan_length = 0;
        *alike = true;
    }
    switch (field->number) {
    case MESSAGE_REORG: return take_reorg(cursor, field->bytes, message, alike);
    case MESSAGE_FINALIZED: return take_finalized(cursor, field->bytes, message);
    case MESSAGE_BATCH: return true;
    default: return check(cursor, field->bytes, bodies[field->number - MESSAGE_REORG]);
    }
}

static bool same_chain(struct span said, struct span chain)
{
    return said.length == 0 || !chain.bytes || (said.length == chain.length && memcmp(said.bytes, chain.bytes, said.length) == 0);
}

/* What the fields say together. */
static enum message_fault judge(struct message *message, struct span chain, const struct time *time, int32_t step, bool alike,
                                bool in_batch)
{
    if (in_batch && message->body == MESSAGE_BATCH)
        return MESSAGE_BATCH_IN_BATCH;
    if (in_batch && message->body > MESSAGE_BATCH)
        return MESSAGE_NOT_IN_BATCH;
    if (message->body > MESSAGE_BATCH)
        return MESSAGE_SOUND; /* Its other fields say nothing. */
    if (!same_chain(message->chain, chain) || !same_chain(message->reorg_chain, chain))
        return MESSAGE_OTHER_CHAIN;
    if (message->body == MESSAGE_BATCH)
        return MESSAGE_SOUND;
    if (message->position.length > SUPERVM_MAX_POSITION_BYTES)
        return MESSAGE_LONG_POSITION;
    switch (message->body) {
    case MESSAGE_REORG:
        if (message->from_height == SUPERVM_HEIGHT_UNKNOWN)
            return MESSAGE_HEIGHT;
        if (message->from_height < message->to_height)
            return MESSAGE_REORG_UPWARDS;
        if (message->orphan_count > MESSAGE_MAX_ORPHANS)
            return MESSAGE_MANY_ORPHANS;
        return alike ? MESSAGE_SOUND : MESSAGE_ORPHAN_LENGTH;
    case MESSAGE_FINALIZED:
        if (message->finalized_height == SUPERVM_HEIGHT_UNKNOWN)
            return MESSAGE_HEIGHT;
        if (message->finalized_hash.length == 0 || message->finalized_hash.length > SUPERVM_MAX_HASH_BYTES)
            return MESSAGE_FINAL_HASH;
        return MESSAGE_SOUND;
    case MESSAGE_END_OF_INPUT: return MESSAGE_SOUND;
    default: break;
    }
    if (message->hash.length > SUPERVM_MAX_HASH_BYTES)
        return MESSAGE_LONG_HASH;
    if (message->parent.length > SUPERVM_MAX_HASH_BYTES)
        return MESSAGE_LONG_PARENT;
    if (message->weight.length > SUPERVM_WEIGHT_BYTES)
        return MESSAGE_LONG_WEIGHT;
    if (step != 0)
        return MESSAGE_STEP;
    message->time = SUPERVM_TIME_UNKNOWN;
    if (time->said) {
        int64_t nanoseconds;
        if (time->nanos < 0 || time->nanos > 999999999)
            return MESSAGE_BAD_TIME;
        if (!__builtin_mul_overflow(time->seconds, INT64_C(1000000000), &nanoseconds) &&
            !__builtin_add_overflow(nanoseconds, time->nanos, &nanoseconds))
            message->time = nanoseconds;
    }
    return MESSAGE_SOUND;
}

static enum message_fault read(struct cursor *cursor, struct span chain, struct message *message, bool in_batch)
{
    *message = (struct message){
        .whole = {cursor->at, (size_t)(cursor->end - cursor->at)},
        .height = SUPERVM_HEIGHT_UNKNOWN,
        .final_height = SUPERVM_HEIGHT_UNKNOWN,
        .time = SUPERVM_TIME_UNKNOWN,
    };
    struct time time = {0, 0, false};
    int32_t step = 0;
    bool genesis = false;
    bool alike = true;
    struct field field;
    const uint8_t *tag = cursor->at;
    for (; next_field(cursor, &field); tag = cursor->at) {
        if (field.type == VARINT) {
            switch (field.number) {
            case 2: message->height = field.value ? field.value : SUPERVM_HEIGHT_UNKNOWN; break;
            case 8: step = (int32_t)(uint32_t)field.value; break;
            case 11: message->final_height = field.value; break;
            case 14: genesis = field.value != 0; break;
            default: break;
            }
            continue;
        }
        if (field.type != LENGTH)
            continue;
        bool good = true;
        switch (field.number) {
        case 1:
            message->chain = field.bytes;
            good = take_text(cursor, field.bytes);
            break;
        case 3: message->payload = field.bytes; break;
        case 4:
        case 9: good = take_text(cursor, field.bytes); break;
        case 5: good = take_time(cursor, field.bytes, &time); break;
        case 6: message->hash = field.bytes; break;
        case 7: message->parent = field.bytes; break;
        case 10: message->position = field.bytes; break;
        case 12: message->weight = field.bytes; break;
        case 13: good = check(cursor, field.bytes, &ir_shape); break;
        default:
            if (field.number >= MESSAGE_REORG && field.number <= MESSAGE_LAST_BODY)
                good = take_body(cursor, &field, tag, message, &alike);
            break;
        }
        if (!good)
            return cursor->fault;
    }
    if (cursor->fault)
        return cursor->fault;
    enum message_fault fault = judge(message, chain, &time, step, alike, in_batch);
    if (genesis && message->body == MESSAGE_BLOCK && fault == MESSAGE_SOUND) {
        if (message->height != SUPERVM_HEIGHT_UNKNOWN)
            return MESSAGE_GENESIS;
        message->height = 0;
    }
    return fault;
}

enum message_fault message_read(struct span whole, struct span chain, struct message *message, size_t *at)
{
    struct cursor cursor = cursor_of(whole, MESSAGE_MAX_DEPTH);
    enum message_fault fault = read(&cursor, chain, message, false);
    *at = (size_t)(cursor.at - whole.bytes);
    return fault;
}

bool batch_next(struct batch *batch, struct span chain, struct message *message, enum message_fault *fault, size_t *at)
{
    const uint8_t *begin = batch->message->whole.bytes;
    *fault = MESSAGE_SOUND;
    do {
        if (!batch->rest.length)
            continue;
        struct cursor cursor = cursor_of(batch->rest, MESSAGE_MAX_DEPTH - 1);
        struct field field;
        while (next_field(&cursor, &field)) {
            if (field.number != 1 || field.type != LENGTH)
                continue;
            batch->rest = (struct span){cursor.at, (size_t)(cursor.end - cursor.at)};
            struct cursor inner = cursor_of(field.bytes, MESSAGE_MAX_DEPTH - 2);
            *fault = batch->count++ < MESSAGE_MAX_BATCH ? read(&inner, chain, message, true) : MESSAGE_LONG_BATCH;
            *at = (size_t)(inner.at - begin);
            return *fault == MESSAGE_SOUND;
        }
        if (cursor.fault) {
            *fault = cursor.fault;
            *at = (size_t)(cursor.at - begin);
            return false;
        }
    } while (message_piece(batch->message, &batch->place, &batch->rest));
    return false;
}

bool message_piece(const struct message *message, const uint8_t **place, struct span *piece)
{
    const uint8_t *end = message->whole.bytes + message->whole.length;
    struct cursor cursor = {.at = *place ? *place : message->body_begin, .end = end, .depth = MESSAGE_MAX_DEPTH};
    struct field field;
    if (message->body == MESSAGE_BLOCK)
        return false;
    while (next_field(&cursor, &field)) {
        if (field.number != message->body || field.type != LENGTH)
            continue;
        *piece = field.bytes;
        *place = cursor.at;
        return true;
    }
    *place = end;
    return false;
}

void message_orphans(const struct message *message, uint8_t *to, size_t length)
{
    const uint8_t *place = NULL;
    struct span piece;
    struct field field;
    size_t size = message->orphan_length;
    while (message_piece(message, &place, &piece)) {
        struct cursor cursor = cursor_of(piece, MESSAGE_MAX_DEPTH);
        while (next_field(&cursor, &field)) {
            if (field.number != 4 || field.type != LENGTH || field.bytes.length != size || size > length)
                continue;
            memcpy(to, field.bytes.bytes, size);
            to += size;
            length -= size;
        }
    }
}
