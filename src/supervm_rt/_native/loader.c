#define _GNU_SOURCE
#include "loader.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static _Atomic uint32_t loads;

/* "/proc/self/fd/N" with a "/" or "/." for each bit of number before the last "/". */
static void spell_path(char *path, int fd, uint32_t number)
{
    char *end = stpcpy(path, "/proc/self/fd");
    for (int bit = 0; bit < 32; bit++)
        end = stpcpy(end, (number >> bit) & 1 ? "/." : "/");
    snprintf(end, LOADER_PATH_BYTES - (size_t)(end - path), "/%d", fd);
}

/* Whether the mapping that begins at base is one of this file. */
static bool is_mapping_of(uintptr_t base, int fd)
{
    struct stat file;
    if (fstat(fd, &file) != 0)
        return false;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return false;
    bool found = false;
    char *line = NULL;
    size_t line_bytes = 0;
    while (!found && getline(&line, &line_bytes, maps) > 0) {
        uintptr_t start;
        unsigned int major_number, minor_number;
        uint64_t inode;
        if (sscanf(line, "%" SCNxPTR "-%*x %*s %*x %x:%x %" SCNu64, &start, &major_number, &minor_number, &inode) != 4)
            continue;
        found = start == base && inode == file.st_ino && makedev(major_number, minor_number) == file.st_dev;
    }
    free(line);
    fclose(maps);
    return found;
}

/* The export, if this library itself has it; dlsym also looks into what it depends on. */
static void *find_export(const struct library *library, const char *name)
{
    Dl_info info;
    void *found = dlsym(library->handle, name);
    if (!found || dladdr(found, &info) == 0 || (uintptr_t)info.dli_fbase != library->base)
        return NULL;
    return found;
}

/* dl_iterate_phdr: the end of the library's last segment. */
static int find_end(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size;
    struct library *library = argument;
    if (strcmp(info->dlpi_name, library->path) != 0)
        return 0;
    for (int index = 0; index < info->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[index];
        uintptr_t end = info->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        if (segment->p_type == PT_LOAD && end > library->end)
            library->end = end;
    }
    return 1;
}

static enum loader_result examine(struct library *library, int fd, char *detail, size_t detail_bytes)
{
    struct link_map *map;
    if (dlinfo(library->handle, RTLD_DI_LINKMAP, &map) != 0 || strcmp(map->l_name, library->path) != 0)
        return LOADER_NOT_NEW;
    Dl_info info;
    if (dladdr(map->l_ld, &info) == 0 || !is_mapping_of((uintptr_t)info.dli_fbase, fd))
        return LOADER_NOT_NEW;
    library->base = (uintptr_t)info.dli_fbase;
    dl_iterate_phdr(find_end, library);

    struct {
        const char *name;
        void *place;
    } exports[] = {
        {"plugin_get_manifest_json", &library->get_manifest_json},
        {"plugin_init", &library->init},
        {"plugin_start", &library->start},
        {"plugin_stop", &library->stop},
        {"plugin_free_string", &library->free_string},
    };
    for (size_t index = 0; index < sizeof exports / sizeof *exports; index++) {
        void *found = find_export(library, exports[index].name);
        if (!found) {
            snprintf(detail, detail_bytes, "%s", exports[index].name);
            return LOADER_MISSING_EXPORT;
        }
        memcpy(exports[index].place, &found, sizeof found);
    }
    return LOADER_OK;
}

enum loader_result loader_open(struct library *library, int fd, char *detail, size_t detail_bytes)
{
    memset(library, 0, sizeof *library);
    detail[0] = 0;
    spell_path(library->path, fd, atomic_fetch_add(&loads, 1));
    library->handle = dlopen(library->path, RTLD_NOW | RTLD_LOCAL);
    if (!library->handle) {
        const char *text = dlerror();
        snprintf(detail, detail_bytes, "%s", text ? text : "no reason given");
        return LOADER_REFUSED;
    }
    enum loader_result result = examine(library, fd, detail, detail_bytes);
    if (result != LOADER_OK)
        loader_close(library);
    return result;
}

bool loader_close(struct library *library)
{
    if (library->handle)
        dlclose(library->handle);
    library->handle = NULL;
    return !loader_is_mapped(library);
}

static int has_path(struct dl_phdr_info *info, size_t size, void *path)
{
    (void)size;
    return strcmp(info->dlpi_name, path) == 0;
}

bool loader_is_mapped(const struct library *library)
{
    return dl_iterate_phdr(has_path, (void *)library->path) != 0;
}
