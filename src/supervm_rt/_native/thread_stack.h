/* Whether a thread would miss a library if it went. */
#ifndef SUPERVM_NATIVE_THREAD_STACK_H
#define SUPERVM_NATIVE_THREAD_STACK_H

#include <stdint.h>
#include <sys/types.h>

enum thread_stack_answer { THREAD_STACK_CLEAN, THREAD_STACK_REFERS, THREAD_STACK_UNKNOWN };

/* Looks through the stack of another thread of this process for words from low up to high, exclusive: return addresses, and at
 * the stack's end the function it was started with. UNKNOWN where it runs just now. Words of another meaning that fall in the
 * range make it say REFERS, which errs on the safe side. */
enum thread_stack_answer thread_stack_refers(pid_t thread, uintptr_t low, uintptr_t high);

#endif
