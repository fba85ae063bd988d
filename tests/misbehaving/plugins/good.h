/* What the plugins of this folder share. good.c defines all five exports, each of which a plugin may define anew. */
#ifndef GOOD_H
#define GOOD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <supervm/supervm.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct supervm_host_vtable *host;
extern const struct supervm_block_sink_1 *sink; /* NULL where it was not granted. */
extern atomic_int stopping;                     /* 1 once plugin_stop was called. */

/* What plugin_init of good.c does, for those that define their own. 0, or what it answers. */
int good_init(void *vtable);

/* A block of the chain dev. Its id is the height and the branch; what it names as its parent is one lower, on the same branch. */
struct supervm_block_1 dev_block(uint64_t height, uint8_t branch);

/* Publishes the blocks from 1 to count of branch 0. The first status that is not OK. */
int publish_chain(uint64_t count);

/* Tells the test that the misdeed is done: a log line. */
void done(void);

/* Ends plugin_start (or whoever calls) with the number of the line where the host did not answer as its headers say. */
#define EXPECT(condition)                                                                                                       \
    do {                                                                                                                        \
        if (!(condition))                                                                                                       \
            return __LINE__;                                                                                                    \
    } while (0)

static inline void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* Never returns; costs nothing. */
static inline void hang(void)
{
    for (;;)
        rest();
}

#ifdef __cplusplus
}
#endif

#endif
