/* The name of the calling thread, as the kernel keeps it. A thread inherits the name of the one that makes it, which is how a
 * plugin's threads are told from others. */
#ifndef SUPERVM_NATIVE_THREAD_NAME_H
#define SUPERVM_NATIVE_THREAD_NAME_H

#include <sys/prctl.h>

#define THREAD_NAME_BYTES 16 /* With the NUL. */

/* Takes another name; before (THREAD_NAME_BYTES long) receives the present one, for thread_name_restore. */
static inline void thread_name_borrow(char *before, const char *name)
{
    prctl(PR_GET_NAME, before);
    prctl(PR_SET_NAME, name);
}

static inline void thread_name_restore(const char *before)
{
    prctl(PR_SET_NAME, before);
}

#endif
