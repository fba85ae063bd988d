#include "settings.h"

#include <string.h>

const struct network networks[] = {
    {"main", {0xf9, 0xbe, 0xb4, 0xd9}},
    {"testnet3", {0x0b, 0x11, 0x09, 0x07}},
    {"testnet4", {0x1c, 0x16, 0x3f, 0x28}},
    {"signet", {0x0a, 0x03, 0xcf, 0x40}},
    {"regtest", {0xfa, 0xbf, 0xb5, 0xda}},
};
const size_t network_count = sizeof networks / sizeof networks[0];

/* Bitcoin counts heights in 31 bits. */
#define MAX_HEIGHT INT32_MAX

/* Each setter takes the value as text: a command line only has strings, so "7" and 7, "true" and true mean the same. */
struct setting {
    const char *key;
    bool (*set)(struct settings *settings, const struct json_member *member);
    const char *allowed;
};

static bool set_blocks_dir(struct settings *settings, const struct json_member *member)
{
    if (member->type != JSON_STRING || member->text[0] == '\0')
        return false;
    memcpy(settings->blocks_dir, member->text, sizeof settings->blocks_dir);
    return true;
}

static bool set_network(struct settings *settings, const struct json_member *member)
{
    for (size_t i = 0; i < network_count; i++) {
        if (member->type == JSON_STRING && strcmp(member->text, networks[i].name) == 0) {
            settings->network = &networks[i];
            return true;
        }
    }
    return false;
}

static bool set_follow(struct settings *settings, const struct json_member *member)
{
    bool yes = strcmp(member->text, "true") == 0, no = strcmp(member->text, "false") == 0;
    settings->follow = yes;
    return yes || no;
}

static bool set_start_height(struct settings *settings, const struct json_member *member)
{
    size_t digits = strspn(member->text, "0123456789");
    if (member->type != JSON_NUMBER && member->type != JSON_STRING)
        return false;
    if (digits == 0 || digits > 10 || member->text[digits] != '\0')
        return false;
    uint64_t height = 0;
    for (size_t i = 0; i < digits; i++)
        height = height * 10 + (uint64_t)(member->text[i] - '0');
    settings->start_height = height;
    return height <= MAX_HEIGHT;
}

static const struct setting known[] = {
    {"blocks_dir", set_blocks_dir, "the path of the node's blocks folder"},
    {"network", set_network, "one of main, testnet3, testnet4, signet, regtest"},
    {"follow", set_follow, "true or false"},
    {"start_height", set_start_height, "a whole number from 0 to 2147483647"},
};

struct reading {
    struct settings *settings;
    unsigned seen; /* One bit per entry of known. */
};

static bool take_member(void *context, const struct json_member *member)
{
    struct reading *reading = context;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(member->key, known[i].key) != 0)
            continue;
        if (reading->seen & 1u << i) {
            host_say(SUPERVM_LOG_ERROR, "configuration: %s is set twice: set it once", member->key);
            return false;
        }
        reading->seen |= 1u << i;
        if (!known[i].set(reading->settings, member)) {
            host_say(SUPERVM_LOG_ERROR,
                     "configuration: %s is '%.200s': it must be %s", member->key, member->text, known[i].allowed);
            return false;
        }
        return true;
    }
    host_say(SUPERVM_LOG_ERROR, "configuration: unknown key '%.200s': allowed are blocks_dir, network, follow, start_height",
             member->key);
    return false;
}

enum failure settings_read(struct settings *settings, const char *json, size_t length)
{
    *settings = (struct settings){.network = &networks[0], .start_height = SUPERVM_HEIGHT_UNKNOWN};
    struct reading reading = {.settings = settings};
    size_t where;
    const char *error = json_read_object(json, length, take_member, &reading, &where);
    if (error != NULL) {
        if (error[0] != '\0')
            host_say(SUPERVM_LOG_ERROR, "configuration: byte %zu: %s: it must be one flat JSON object", where, error);
        return FAILURE_SETTINGS;
    }
    if (settings->blocks_dir[0] == '\0') {
        host_say(SUPERVM_LOG_ERROR,
                 "configuration: blocks_dir is not set: set it to the node's blocks folder, which holds blk00000.dat");
        return FAILURE_SETTINGS;
    }
    return FAILURE_NONE;
}
