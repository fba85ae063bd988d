/* Invariant: memory that the decoder asks for can be refused to it. Included before the decoder. */
#ifndef FUZZ_REMOTE_FRAMES_SYSTEM_H
#define FUZZ_REMOTE_FRAMES_SYSTEM_H

#include <stddef.h>
#include <stdlib.h>

void *system_malloc(size_t size);
void *system_realloc(void *place, size_t size);

#ifdef FUZZ_PRODUCT
#define malloc(size) system_malloc(size)
#define realloc(place, size) system_realloc(place, size)
#endif

#endif
