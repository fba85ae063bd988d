/* supervm/config.h - extension "supervm.config/1": the plugin's own configuration, as the operator wrote it. */
#ifndef SUPERVM_CONFIG_H
#define SUPERVM_CONFIG_H

#include "plugin.h"

#define SUPERVM_CONFIG_1 "supervm.config/1"

struct supervm_config_1 {
    uint32_t struct_size; /* sizeof(struct supervm_config_1) as the host knows it. */
    uint32_t reserved;
    void *host; /* First argument of every function below. */

    /* Gives the configuration as one JSON object, UTF-8, *length bytes and a NUL after them. The object is "{}" where the
     * operator set nothing. Any thread, from plugin_init on. OWNERSHIP: the host's; valid until plugin_stop has returned. */
    int32_t (*get)(void *host, const char **json, uint64_t *length);
};

SUPERVM_ASSERT(offsetof(struct supervm_config_1, host) == 8, "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_config_1) == 8 + 2 * sizeof(void *), "frozen");

#endif
