/* supervm/resume.h - extension "supervm.resume/1": where to go on. Needs the capability block_stream.
 *
 * The host keeps, in the same transaction as the blocks, the position of the last frame below which everything that the plugin
 * said is durable. What came after it may come again; the host drops what it already has.
 */
#ifndef SUPERVM_RESUME_H
#define SUPERVM_RESUME_H

#include "plugin.h"

#define SUPERVM_RESUME_1 "supervm.resume/1"

struct supervm_resume_1 {
    uint32_t struct_size; /* sizeof(struct supervm_resume_1) as the host knows it. */
    uint32_t reserved;
    void *host; /* First argument of every function below. */

    /* Gives the position to go on from, or answers SUPERVM_NOT_FOUND: start from the beginning. Any thread, from plugin_init on.
     * OWNERSHIP: the host's; valid until plugin_stop has returned. */
    int32_t (*position)(void *host, const uint8_t **position, uint64_t *length);
};

SUPERVM_ASSERT(offsetof(struct supervm_resume_1, host) == 8, "frozen");
SUPERVM_ASSERT(sizeof(struct supervm_resume_1) == 8 + 2 * sizeof(void *), "frozen");

#endif
