/* supervm/status.h - the answers that cross the boundary.
 *
 * Every function of the host or of a plugin that can fail answers with an int32_t (in the v0 core: an int) from this list.
 * 0 is success. A number is never given another meaning and never used again. A plugin must treat a negative number that it
 * does not know as a failure that is final for this call.
 */
#ifndef SUPERVM_STATUS_H
#define SUPERVM_STATUS_H

#include <stdint.h>

typedef int32_t supervm_status;

#define SUPERVM_OK 0
/* A pointer is NULL that must not be, a length or a field is out of its range, a struct_size is too small. */
#define SUPERVM_INVALID_ARGUMENT (-1)
/* The signed manifest or the host's policy did not grant what was asked for. Final for the life of the plugin. */
#define SUPERVM_NOT_GRANTED (-2)
/* Larger than the host's bound (for a block: larger than the ring can ever hold). */
#define SUPERVM_TOO_LARGE (-3)
/* The queue is full now and this call does not wait. What was handed over is not kept. */
#define SUPERVM_QUEUE_FULL (-4)
/* No plugin serves the chain that was named. */
#define SUPERVM_NO_ROUTE (-5)
/* The host is stopping this plugin. Return from every loop; publish nothing more. */
#define SUPERVM_STOPPING (-6)
/* The call would have had to wait, and was asked not to. */
#define SUPERVM_WOULD_BLOCK (-7)
/* The same thread is already inside this facility (a signal handler, or a reserve that was not committed). */
#define SUPERVM_BUSY (-8)
/* There is none (no position to resume from, for example). */
#define SUPERVM_NOT_FOUND (-9)
/* Not allowed in the present state (commit without reserve, for example). */
#define SUPERVM_WRONG_STATE (-10)
/* The host has no memory left for this. */
#define SUPERVM_NO_MEMORY (-11)
/* What the call waited for did not happen within its timeout. */
#define SUPERVM_TIMED_OUT (-12)
/* The other end cannot be reached, or does not take the connection. */
#define SUPERVM_UNREACHABLE (-13)

#endif
