/* json.h - a strict reader for one flat JSON object, which is all that a plugin's configuration is. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_MAX_TEXT 4096 /* Bytes of the longest key or value, its NUL included. */

enum json_type { JSON_STRING, JSON_NUMBER, JSON_TRUE, JSON_FALSE, JSON_NULL };

struct json_member {
    char key[JSON_MAX_TEXT];   /* UTF-8, NUL-terminated, escapes resolved. */
    char text[JSON_MAX_TEXT];  /* A string's content, or a number as it was written; "true", "false", "null" otherwise. */
    enum json_type type;
};

/* Calls member for each member in order, until one returns false. Returns NULL when the whole text was read, or what is wrong:
 * a static sentence, with the offset of the byte in *where. A member that returned false gives "" there. */
const char *json_read_object(const char *json, size_t length, bool (*member)(void *context, const struct json_member *member),
                             void *context, size_t *where);

#endif
