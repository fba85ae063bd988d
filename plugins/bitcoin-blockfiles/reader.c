#define _GNU_SOURCE
#include "reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list of files ------------------------------------------------------------------------------------------------- */

/* The number in the name of a block file. Only names that the node itself would give count. */
static bool parse_name(const char *name, uint32_t *number)
{
    char canonical[FILE_NAME_BYTES];
    if (strncmp(name, "blk", 3) != 0)
        return false;
    size_t digits = strspn(name + 3, "0123456789");
    if (digits < 5 || digits > 10)
        return false;
    uint64_t value = strtoull(name + 3, NULL, 10);
    if (value > UINT32_MAX)
        return false;
    block_file_name(canonical, (uint32_t)value);
    *number = (uint32_t)value;
    return strcmp(name, canonical) == 0;
}

static int compare_files(const void *left, const void *right)
{
    uint32_t a = ((const struct block_file *)left)->cursor.file, b = ((const struct block_file *)right)->cursor.file;
    return (a > b) - (a < b);
}

static struct block_file *find_file(struct reader *reader, uint32_t number, size_t among)
{
    struct block_file wanted = {.cursor.file = number};
    return among == 0 ? NULL : bsearch(&wanted, reader->files, among, sizeof wanted, compare_files);
}

/* Adds a file behind the others; the caller sorts. NULL: no memory. */
static struct block_file *add_file(struct reader *reader, uint32_t number)
{
    if (reader->count == reader->capacity) {
        size_t capacity = reader->capacity == 0 ? 64 : reader->capacity * 2;
        struct block_file *files = reallocarray(reader->files, capacity, sizeof *files);
        if (files == NULL)
            return NULL;
        reader->files = files;
        reader->capacity = capacity;
    }
    struct block_file *file = &reader->files[reader->count++];
    *file = (struct block_file){.cursor.file = number};
    return file;
}

/* Brings the list in line with the folder: new files join, those that are gone (pruned) leave. false: errno says why. */
static bool list_files(struct reader *reader, DIR *folder)
{
    size_t known = reader->count;
    for (size_t i = 0; i < known; i++)
        reader->files[i].listed = false;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(folder)) != NULL) {
        uint32_t number;
        if (!parse_name(entry->d_name, &number))
            continue;
        struct block_file *file = find_file(reader, number, known);
        if (file == NULL) {
            file = add_file(reader, number);
            if (file == NULL)
                return false;
            file->take_as_read = number < reader->read_below;
        }
        file->listed = true;
    }
    if (errno != 0)
        return false;
    size_t kept = 0;
    for (size_t i = 0; i < reader->count; i++)
        if (reader->files[i].listed)
            reader->files[kept++] = reader->files[i];
    reader->count = kept;
    if (kept > 0)
        qsort(reader->files, kept, sizeof *reader->files, compare_files);
    reader->read_below = 0;
    return true;
}

/* ---- positions --------------------------------------------------------------------------------------------------------- */

static bool has_rest(const struct block_file *file)
{
    return file->failed || file->look_again || file->cursor.offset < file->stamp.size;
}

void reader_prepare_position(struct reader *reader, const struct block_file *current)
{
    const struct block_file *highest = current;
    for (size_t i = 0; i < reader->count; i++)
        if (reader->files[i].touched && reader->files[i].cursor.file > highest->cursor.file)
            highest = &reader->files[i];
    struct position *position = &reader->position;
    *position = (struct position){.count = 0};
    reader->current = SIZE_MAX;
    for (size_t i = 0; i < reader->count; i++) {
        const struct block_file *file = &reader->files[i];
        bool unread = file->touched ? has_rest(file) : !file->take_as_read && file->cursor.file < highest->cursor.file;
        if (file != current && file != highest && !unread)
            continue;
        if (position->count == POSITION_MAX_CURSORS) {
            position->overflow = true;
            position->count = 1;
            if (reader->current > 0)
                reader->current = SIZE_MAX;
            return;
        }
        if (file == current)
            reader->current = position->count;
        position->cursors[position->count++] = file->cursor;
    }
}

static void start_from_beginning(struct reader *reader)
{
    reader->count = 0;
    reader->read_below = 0;
    reader->claim = reader->settings.start_height;
}

/* Takes up the position that the host kept. */
static enum failure resume(struct reader *reader, int folder_fd)
{
    const uint8_t *bytes;
    uint64_t length;
    struct position position;
    start_from_beginning(reader);
    if (host.resume == NULL || host.resume->position(host.resume->host, &bytes, &length) != SUPERVM_OK)
        return FAILURE_NONE;
    if (!position_decode(&position, bytes, length)) {
        host_say(SUPERVM_LOG_WARNING,
                 "the position that the host kept is not one of this version of the plugin: every file is read "
                 "again");
        return FAILURE_NONE;
    }
    for (size_t i = 0; i < position.count; i++) {
        struct block_file *file = add_file(reader, position.cursors[i].file);
        if (file == NULL)
            return FAILURE_SYSTEM;
        file->cursor = position.cursors[i];
        file->touched = file->look_again = true;
    }
    const struct block_file *highest = &reader->files[reader->count - 1];
    char name[FILE_NAME_BYTES];
    block_file_name(name, highest->cursor.file);
    if (block_file_check(reader, highest, folder_fd) != RECORD_COMPLETE) {
        host_say(SUPERVM_LOG_WARNING,
                 "%s is missing, cannot be read, or is not the file that was read up to byte %" PRIu64 " before (a "
                 "node that pruned or was set up anew, or another folder): every file is read again",
                 name, highest->cursor.offset);
        start_from_beginning(reader);
        return FAILURE_NONE;
    }
    reader->read_below = position.overflow ? position.cursors[0].file : highest->cursor.file;
    reader->claim = SUPERVM_HEIGHT_UNKNOWN;
    host_say(SUPERVM_LOG_INFO, "going on in %s at byte %" PRIu64, name, highest->cursor.offset);
    return FAILURE_NONE;
}

/* ---- the folder -------------------------------------------------------------------------------------------------------- */

/* Reads xor.dat. NULL, or what is wrong with it. */
static const char *load_key(struct xor_key *key, int folder_fd)
{
    switch (xor_key_load(key, folder_fd)) {
    case XOR_KEY_WRONG_SIZE:
        return "it is not 8 bytes long; restore the node's own file";
    case XOR_KEY_UNREADABLE:
        return strerror(errno);
    default:
        return NULL;
    }
}

/* Looks at the first bytes of the lowest file. Those of another network are a slip in the configuration, and it is kinder to
 * say so than to report 128 MiB of garbage per file. */
static enum failure check_network(struct reader *reader, int folder_fd)
{
    char name[FILE_NAME_BYTES];
    uint8_t magic[MAGIC_BYTES];
    struct stat status;
    block_file_name(name, reader->files[0].cursor.file);
    int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return FAILURE_NONE; /* The pass reports it. */
    bool read = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && record_read(fd, 0, magic, sizeof magic) == sizeof magic;
    close(fd);
    if (!read || memcmp(magic, "\0\0\0\0", sizeof magic) == 0)
        return FAILURE_NONE;
    xor_key_apply(&reader->key, 0, magic, sizeof magic);
    if (memcmp(magic, reader->settings.network->magic, sizeof magic) == 0)
        return FAILURE_NONE;
    for (size_t i = 0; i < network_count; i++) {
        if (memcmp(magic, networks[i].magic, sizeof magic) == 0) {
            host_say(SUPERVM_LOG_ERROR,
                     "%s holds blocks of %s, not of %s: set network to %s, or blocks_dir to another folder", name,
                     networks[i].name, reader->settings.network->name, networks[i].name);
            return FAILURE_NETWORK;
        }
    }
    host_say(SUPERVM_LOG_WARNING,
             "%s does not begin with a block: if the folder was copied, its xor.dat must be copied too", name);
    return FAILURE_NONE;
}

/* There is no block file: an error, unless a node is expected to write some. */
static enum failure check_empty(const struct reader *reader, int folder_fd)
{
    struct stat status;
    const char *hint = "";
    if (fstatat(folder_fd, "blocks", &status, 0) == 0)
        hint = " (it has a folder blocks inside: is that the one?)";
    if (reader->settings.follow) {
        host_say(SUPERVM_LOG_WARNING, "%s has no block files (blk00000.dat) yet%s: waiting for a node to write them",
                 reader->settings.blocks_dir, hint);
        return FAILURE_NONE;
    }
    host_say(SUPERVM_LOG_ERROR,
             "%s has no block files (blk00000.dat)%s: set blocks_dir to the blocks folder of a node's data folder",
             reader->settings.blocks_dir, hint);
    return FAILURE_EMPTY;
}

static enum failure check_folder(struct reader *reader, DIR *folder)
{
    if (!list_files(reader, folder)) {
        host_say(SUPERVM_LOG_ERROR, "%s cannot be listed: %s", reader->settings.blocks_dir, strerror(errno));
        return FAILURE_FOLDER;
    }
    if (reader->count == 0)
        return check_empty(reader, dirfd(folder));
    const char *error = load_key(&reader->key, dirfd(folder));
    if (error != NULL) {
        host_say(SUPERVM_LOG_ERROR, "%s/xor.dat cannot be used: %s", reader->settings.blocks_dir, error);
        return FAILURE_XOR_KEY;
    }
    return check_network(reader, dirfd(folder));
}

enum failure reader_open(struct reader *reader, const struct settings *settings)
{
    *reader = (struct reader){.settings = *settings};
    DIR *folder = opendir(settings->blocks_dir);
    if (folder == NULL) {
        host_say(SUPERVM_LOG_ERROR,
                 "blocks_dir %s cannot be read: %s: it must be a node's blocks folder, readable for the user that runs "
                 "the host", settings->blocks_dir, strerror(errno));
        return FAILURE_FOLDER;
    }
    reader->scratch = malloc(SCRATCH_BYTES);
    enum failure failure = reader->scratch == NULL ? FAILURE_SYSTEM : FAILURE_NONE;
    if (failure == FAILURE_NONE)
        failure = check_folder(reader, folder);
    if (failure == FAILURE_NONE)
        failure = resume(reader, dirfd(folder));
    closedir(folder);
    if (failure == FAILURE_SYSTEM)
        host_say(SUPERVM_LOG_ERROR, "no memory for the list of files");
    if (failure != FAILURE_NONE)
        reader_close(reader);
    return failure;
}

void reader_close(struct reader *reader)
{
    free(reader->files);
    free(reader->scratch);
    reader->files = NULL;
    reader->scratch = NULL;
    reader->count = reader->capacity = 0;
}

/* ---- passes ------------------------------------------------------------------------------------------------------------ */

/* The key again, in each pass: a node that was started after this plugin, or set up anew, has made one since. It does so before
 * it writes its first block file, so a key that is read after the files were listed is theirs. */
static const char *renew_key(struct reader *reader, int folder_fd)
{
    struct xor_key key;
    const char *error = reader->count == 0 ? NULL : load_key(&key, folder_fd);
    if (error != NULL || reader->count == 0 || memcmp(&key, &reader->key, sizeof key) == 0)
        return error;
    reader->key = key;
    bool told = false;
    for (size_t i = 0; i < reader->count; i++) {
        struct block_file *file = &reader->files[i];
        if (file->touched && !told)
            host_say(SUPERVM_LOG_WARNING, "xor.dat has changed, so these are other files: every file is read again");
        told |= file->touched;
        *file = (struct block_file){.cursor.file = file->cursor.file};
    }
    reader->claim = reader->settings.start_height;
    return NULL;
}

enum pass_end reader_pass(struct reader *reader, bool *progress, bool *unsettled)
{
    uint64_t blocks_before = reader->blocks;
    enum pass_end end = PASS_DONE;
    *progress = *unsettled = false;
    DIR *folder = opendir(reader->settings.blocks_dir);
    const char *error = folder == NULL || !list_files(reader, folder) ? strerror(errno) : NULL, *culprit = "";
    if (error == NULL) {
        error = renew_key(reader, dirfd(folder));
        culprit = "/xor.dat";
    }
    if (error != NULL && !reader->folder_failed)
        host_say(SUPERVM_LOG_ERROR, "%s%s cannot be read any more: %s", reader->settings.blocks_dir, culprit, error);
    reader->folder_failed = error != NULL;
    for (size_t i = 0; error == NULL && i < reader->count && end == PASS_DONE; i++) {
        uint64_t before = reader->blocks;
        end = block_file_read(reader, &reader->files[i], dirfd(folder), i + 1 == reader->count, unsettled);
        /* Once per file with something new: often enough to see progress, and rare beside the blocks. */
        if (reader->blocks != before) {
            host.vtable->host_report_metric("blocks_read", (double)reader->blocks);
            host.vtable->host_report_metric("bytes_read", (double)reader->bytes);
        }
        /* A run that only reads what is there keeps the order of the files. One that follows must not let a file that is
         * written all the time hold up another. */
        if (*unsettled && !reader->settings.follow)
            break;
    }
    if (folder != NULL)
        closedir(folder);
    if (reader->failures_silent > 0) {
        host_say(SUPERVM_LOG_ERROR, "%u more files cannot be read", reader->failures_silent);
        reader->failures_silent = 0;
    }
    *progress = reader->blocks != blocks_before;
    return end;
}
