#include "json.h"

#include <stdint.h>
#include <string.h>

struct cursor {
    const char *text;
    size_t length;
    size_t at;
    const char *error;
};

/* The byte at the cursor, or NUL at the end: NUL is not allowed anywhere in JSON, so the two need not be told apart. */
static char peek(const struct cursor *cursor)
{
    return cursor->at < cursor->length ? cursor->text[cursor->at] : '\0';
}

static void skip_space(struct cursor *cursor)
{
    while (cursor->at < cursor->length && memchr(" \t\r\n", cursor->text[cursor->at], 4) != NULL)
        cursor->at++;
}

static bool fail(struct cursor *cursor, const char *error)
{
    cursor->error = error;
    return false;
}

static bool take(struct cursor *cursor, char wanted, const char *error)
{
    if (peek(cursor) != wanted)
        return fail(cursor, error);
    cursor->at++;
    return true;
}

static bool append(struct cursor *cursor, char *out, size_t *used, const char *bytes, size_t count)
{
    if (*used + count >= JSON_MAX_TEXT)
        return fail(cursor, "a key or value is too long");
    memcpy(out + *used, bytes, count);
    *used += count;
    return true;
}

static bool read_four_hex_digits(struct cursor *cursor, uint32_t *value)
{
    *value = 0;
    for (int digit = 0; digit < 4; digit++) {
        char c = peek(cursor);
        uint32_t nibble;
        if (c >= '0' && c <= '9')
            nibble = (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            nibble = (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return fail(cursor, "\\u is not followed by four hexadecimal digits");
        *value = *value << 4 | nibble;
        cursor->at++;
    }
    return true;
}

/* The rest of a \u escape, as UTF-8. */
static bool read_unicode_escape(struct cursor *cursor, char *out, size_t *used)
{
    uint32_t point;
    if (!read_four_hex_digits(cursor, &point))
        return false;
    if (point >= 0xD800 && point < 0xDC00) {
        uint32_t low;
        if (!take(cursor, '\\', "half of a surrogate pair") || !take(cursor, 'u', "half of a surrogate pair")
            || !read_four_hex_digits(cursor, &low))
            return false;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail(cursor, "half of a surrogate pair");
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    } else if (point >= 0xDC00 && point < 0xE000) {
        return fail(cursor, "half of a surrogate pair");
    }
    if (point == 0)
        return fail(cursor, "a NUL character is not allowed");
    char bytes[4];
    size_t count;
    if (point < 0x80) {
        bytes[0] = (char)point;
        count = 1;
    } else if (point < 0x800) {
        bytes[0] = (char)(0xC0 | point >> 6);
        bytes[1] = (char)(0x80 | (point & 0x3F));
        count = 2;
    } else if (point < 0x10000) {
        bytes[0] = (char)(0xE0 | point >> 12);
        bytes[1] = (char)(0x80 | (point >> 6 & 0x3F));
        bytes[2] = (char)(0x80 | (point & 0x3F));
        count = 3;
    } else {
        bytes[0] = (char)(0xF0 | point >> 18);
        bytes[1] = (char)(0x80 | (point >> 12 & 0x3F));
        bytes[2] = (char)(0x80 | (point >> 6 & 0x3F));
        bytes[3] = (char)(0x80 | (point & 0x3F));
        count = 4;
    }
    return append(cursor, out, used, bytes, count);
}

static bool read_string(struct cursor *cursor, char *out)
{
    static const char escapes[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    size_t used = 0;
    if (!take(cursor, '"', "a string was expected"))
        return false;
    while (peek(cursor) != '"') {
        char c = peek(cursor);
        if (cursor->at >= cursor->length)
            return fail(cursor, "a string does not end");
        if ((unsigned char)c < 0x20)
            return fail(cursor, "a control character inside a string");
        cursor->at++;
        if (c != '\\') {
            if (!append(cursor, out, &used, &c, 1))
                return false;
            continue;
        }
        char escape = peek(cursor);
        const char *known = escape == '\0' ? NULL : strchr(escapes, escape);
        if (known != NULL) {
            cursor->at++;
            if (!append(cursor, out, &used, &meanings[known - escapes], 1))
                return false;
        } else if (escape == 'u') {
            cursor->at++;
            if (!read_unicode_escape(cursor, out, &used))
                return false;
        } else {
            return fail(cursor, "an unknown escape inside a string");
        }
    }
    cursor->at++;
    out[used] = '\0';
    return true;
}

static size_t take_digits(struct cursor *cursor)
{
    size_t begin = cursor->at;
    while (peek(cursor) >= '0' && peek(cursor) <= '9')
        cursor->at++;
    return cursor->at - begin;
}

static bool read_number(struct cursor *cursor, char *out)
{
    size_t begin = cursor->at, used = 0;
    if (peek(cursor) == '-')
        cursor->at++;
    bool leading_zero = peek(cursor) == '0';
    size_t digits = take_digits(cursor);
    if (digits == 0 || (leading_zero && digits > 1))
        return fail(cursor, "not a number");
    if (peek(cursor) == '.') {
        cursor->at++;
        if (take_digits(cursor) == 0)
            return fail(cursor, "not a number");
    }
    if ((peek(cursor) | 0x20) == 'e') {
        cursor->at++;
        if (peek(cursor) == '+' || peek(cursor) == '-')
            cursor->at++;
        if (take_digits(cursor) == 0)
            return fail(cursor, "not a number");
    }
    if (!append(cursor, out, &used, cursor->text + begin, cursor->at - begin))
        return false;
    out[used] = '\0';
    return true;
}

static bool read_value(struct cursor *cursor, struct json_member *member)
{
    static const struct { const char *word; enum json_type type; } words[] = {
        {"true", JSON_TRUE}, {"false", JSON_FALSE}, {"null", JSON_NULL}};
    char first = peek(cursor);
    if (first == '"') {
        member->type = JSON_STRING;
        return read_string(cursor, member->text);
    }
    if (first == '-' || (first >= '0' && first <= '9')) {
        member->type = JSON_NUMBER;
        return read_number(cursor, member->text);
    }
    if (first == '{' || first == '[')
        return fail(cursor, "a value is an object or a list: only strings, numbers, true and false are allowed");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i].word);
        if (cursor->length - cursor->at >= length && memcmp(cursor->text + cursor->at, words[i].word, length) == 0) {
            cursor->at += length;
            member->type = words[i].type;
            memcpy(member->text, words[i].word, length + 1);
            return true;
        }
    }
    return fail(cursor, "a value was expected");
}

static bool read_object(struct cursor *cursor, bool (*visit)(void *, const struct json_member *), void *context)
{
    struct json_member member;
    skip_space(cursor);
    if (!take(cursor, '{', "the configuration is not an object"))
        return false;
    skip_space(cursor);
    if (peek(cursor) == '}') {
        cursor->at++;
    } else {
        for (;;) {
            skip_space(cursor);
            if (!read_string(cursor, member.key))
                return false;
            skip_space(cursor);
            if (!take(cursor, ':', "a colon was expected"))
                return false;
            skip_space(cursor);
            if (!read_value(cursor, &member))
                return false;
            if (!visit(context, &member))
                return fail(cursor, "");
            skip_space(cursor);
            if (peek(cursor) == '}') {
                cursor->at++;
                break;
            }
            if (!take(cursor, ',', "a comma or a closing brace was expected"))
                return false;
        }
    }
    skip_space(cursor);
    return cursor->at == cursor->length || fail(cursor, "something follows the object");
}

const char *json_read_object(const char *json, size_t length, bool (*member)(void *, const struct json_member *), void *context,
                             size_t *where)
{
    struct cursor cursor = {.text = json, .length = length};
    const char *error = read_object(&cursor, member, context) ? NULL : cursor.error;
    *where = cursor.at;
    return error;
}
