/* settings.h - what the operator may set, checked. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host.h"
#include "json.h"

#define MAGIC_BYTES 4

struct network {
    const char *name;
    uint8_t magic[MAGIC_BYTES]; /* The first bytes of each record. */
};

extern const struct network networks[];
extern const size_t network_count;

struct settings {
    char blocks_dir[JSON_MAX_TEXT];
    const struct network *network;
    bool follow;
    uint64_t start_height; /* SUPERVM_HEIGHT_UNKNOWN where it is not set. */
};

/* Reads the JSON that supervm.config/1 gave. FAILURE_NONE, or FAILURE_SETTINGS after a line at ERROR that says what is wrong. */
enum failure settings_read(struct settings *settings, const char *json, size_t length);

#endif
