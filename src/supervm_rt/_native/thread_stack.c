#define _GNU_SOURCE
#include "thread_stack.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK_WORDS 4096
#define MAX_STACK_BYTES (UINT64_C(64) << 20)

/* Where the thread's stack pointer and program counter are, if it sleeps. */
static bool find_registers(pid_t thread, uintptr_t *stack_pointer, uintptr_t *program_counter)
{
    char path[64];
    char text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)thread);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool found = false;
    if (fgets(text, sizeof text, file)) {
        char *last = strrchr(text, ' ');
        if (last) {
            *last = 0;
            char *before = strrchr(text, ' ');
            found = before && sscanf(before, "%" SCNxPTR, stack_pointer) == 1 && sscanf(last + 1, "%" SCNxPTR, program_counter) == 1;
        }
    }
    fclose(file);
    return found;
}

/* The end of the mapping that holds address; 0: none. */
static uintptr_t find_mapping_end(uintptr_t address)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return 0;
    uintptr_t end = 0;
    char *line = NULL;
    size_t line_bytes = 0;
    while (end == 0 && getline(&line, &line_bytes, maps) > 0) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2 && from <= address && address < to)
            end = to;
    }
    free(line);
    fclose(maps);
    return end;
}

enum thread_stack_answer thread_stack_refers(pid_t thread, uintptr_t low, uintptr_t high)
{
    uintptr_t position, program_counter;
    if (!find_registers(thread, &position, &program_counter))
        return THREAD_STACK_UNKNOWN;
    if (program_counter >= low && program_counter < high)
        return THREAD_STACK_REFERS;
    position &= ~(uintptr_t)(sizeof(uintptr_t) - 1);
    uintptr_t end = find_mapping_end(position);
    if (end == 0 || end - position > MAX_STACK_BYTES)
        return THREAD_STACK_UNKNOWN;
    uintptr_t words[CHUNK_WORDS];
    while (position < end) {
        /* The thread may end meanwhile and take its stack along: read as another process would, where that is an error. */
        size_t wanted = end - position < sizeof words ? end - position : sizeof words;
        struct iovec here = {.iov_base = words, .iov_len = wanted};
        struct iovec there = {.iov_base = (void *)position, .iov_len = wanted};
        ssize_t got = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
        if (got <= 0)
            return THREAD_STACK_UNKNOWN;
        for (size_t index = 0; index < (size_t)got / sizeof *words; index++)
            if (words[index] >= low && words[index] < high)
                return THREAD_STACK_REFERS;
        position += (uintptr_t)got;
    }
    return THREAD_STACK_CLEAN;
}
