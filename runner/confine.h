/* The layers that the runner puts around itself, outermost first. Each is for the whole process and cannot be taken off.
 *
 * On failure each answers what could not be done, as a static text; NULL is success.
 */
#ifndef SUPERVM_RUNNER_CONFINE_H
#define SUPERVM_RUNNER_CONFINE_H

#include <stddef.h>
#include <stdint.h>

#include "control.h"

/* No capabilities, no new privileges, not dumpable where nobody has to look into it, limits, no memory that becomes executable. */
const char *confine_process(const struct setup *setup);

/* Only these paths, no TCP, no abstract sockets and no signals of others (Landlock, as far as this kernel has it). What may be done
 * with a path is said by the character before it: r read, w write too, x read and execute, l list folders only. */
const char *confine_files(const struct setup *setup, const uint8_t *paths);

/* The version of Landlock that this kernel has, 0: none. */
int confine_landlock_version(void);

/* In this order: a seccomp program for every thread; the second one put where nothing can change it; and what the profiles
 * cannot say: signals for this process only, no exit status that looks like a signal, no further program but the one that is
 * kept. Then, once foreign code may have run, the kept one for every thread.
 */
const char *confine_calls(const uint8_t *program, uint32_t program_bytes);
const char *confine_keep(const uint8_t *program, uint32_t program_bytes);
const char *confine_guard(void);
const char *confine_finally(void);

/* A status that bubblewrap would tell as a signal is a forbidden call: unlike a refused one, nothing goes on behind it. */
const char *confine_statuses(void);

/* One seccomp program for a process that is to become another. listener: where the host hears of the calls that it wants to judge. */
const char *confine_program(const uint8_t *program, uint32_t program_bytes, int *listener);

#endif
