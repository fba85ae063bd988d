/* Loads a library from a sealed memfd, and makes sure that it is this one that was loaded.
 *
 * dlopen recognises a library by its path and by its inode. /proc/self/fd/N names another file as soon as N is used again, so
 * each load spells that path in a way that was never used before in this process.
 */
#ifndef SUPERVM_NATIVE_LOADER_H
#define SUPERVM_NATIVE_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOADER_PATH_BYTES 192

struct library {
    void *handle;
    uintptr_t base;
    uintptr_t end;
    char path[LOADER_PATH_BYTES]; /* The spelling it was loaded by; no other load shares it. */
    const char *(*get_manifest_json)(void);
    int (*init)(void *vtable);
    int (*start)(void);
    int (*stop)(void);
    void (*free_string)(char *text);
};

enum loader_result {
    LOADER_OK,
    LOADER_REFUSED,        /* The dynamic linker refused it: detail is its text. */
    LOADER_MISSING_EXPORT, /* detail is the export's name. */
    LOADER_NOT_NEW,        /* Something that was loaded before came back. */
};

/* Runs the library's constructors. On failure nothing stays loaded, unless the library refuses to leave (loader_is_mapped). */
enum loader_result loader_open(struct library *library, int fd, char *detail, size_t detail_bytes);

/* Runs the library's destructors. Whether it then left the process. */
bool loader_close(struct library *library);
bool loader_is_mapped(const struct library *library);

#endif
