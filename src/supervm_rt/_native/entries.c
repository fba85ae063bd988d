/* One set of C entry points per slot: which function was called says who called. */
#include "slot.h"

#define EACH_OF_8(X, base) X(base##0) X(base##1) X(base##2) X(base##3) X(base##4) X(base##5) X(base##6) X(base##7)
#define EACH(X)                                                                                                                 \
    EACH_OF_8(X, 00) EACH_OF_8(X, 01) EACH_OF_8(X, 02) EACH_OF_8(X, 03) EACH_OF_8(X, 04) EACH_OF_8(X, 05) EACH_OF_8(X, 06)       \
    EACH_OF_8(X, 07)

/* n is an octal literal, 000 to 077. */
#define DEFINE(n)                                                                                                               \
    static void log_##n(int level, const char *text)                                                                            \
    {                                                                                                                           \
        slot_log(&slot_table[n], level, text);                                                                                  \
    }                                                                                                                           \
    static int submit_tx_##n(const char *chain, const uint8_t *bytes, size_t length)                                            \
    {                                                                                                                           \
        return slot_submit_tx(&slot_table[n], chain, bytes, length);                                                            \
    }                                                                                                                           \
    static int report_metric_##n(const char *name, double value)                                                                \
    {                                                                                                                           \
        return slot_report_metric(&slot_table[n], name, value);                                                                 \
    }                                                                                                                           \
    static int request_shutdown_##n(int reason)                                                                                 \
    {                                                                                                                           \
        return slot_request_shutdown(&slot_table[n], reason);                                                                   \
    }                                                                                                                           \
    static const void *get_extension_##n(const char *id)                                                                        \
    {                                                                                                                           \
        return slot_get_extension(&slot_table[n], id);                                                                          \
    }

EACH(DEFINE)

#define VTABLE(n)                                                                                                               \
    {                                                                                                                           \
        .host_log = log_##n,                                                                                                    \
        .host_submit_tx = submit_tx_##n,                                                                                        \
        .host_report_metric = report_metric_##n,                                                                                \
        .host_request_shutdown = request_shutdown_##n,                                                                          \
        .abi_major = SUPERVM_ABI_MAJOR,                                                                                         \
        .abi_minor = SUPERVM_ABI_MINOR,                                                                                         \
        .struct_size = sizeof(struct supervm_host_vtable),                                                                      \
        .host_get_extension = get_extension_##n,                                                                                \
    },

static const struct supervm_host_vtable vtables[] = {EACH(VTABLE)};

SUPERVM_ASSERT(sizeof vtables / sizeof *vtables == SLOT_COUNT, "one set per slot");

void entries_fill(struct supervm_host_vtable *vtable, int number)
{
    *vtable = vtables[number];
}
