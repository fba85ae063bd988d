#define _GNU_SOURCE
#include "xor_key.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum xor_key_status xor_key_load(struct xor_key *key, int folder_fd)
{
    int fd = openat(folder_fd, "xor.dat", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) {
        *key = (struct xor_key){{0}};
        return XOR_KEY_NONE;
    }
    if (fd < 0)
        return XOR_KEY_UNREADABLE;
    uint8_t bytes[XOR_KEY_BYTES + 1]; /* One more, to notice a file that is too long. */
    ssize_t count = pread(fd, bytes, sizeof bytes, 0);
    int error = errno;
    close(fd);
    errno = error;
    if (count < 0)
        return XOR_KEY_UNREADABLE;
    if (count != XOR_KEY_BYTES)
        return XOR_KEY_WRONG_SIZE;
    memcpy(key->bytes, bytes, XOR_KEY_BYTES);
    return XOR_KEY_READ;
}

void xor_key_apply(const struct xor_key *key, uint64_t offset, uint8_t *bytes, size_t count)
{
    uint8_t turned[XOR_KEY_BYTES];
    for (size_t i = 0; i < XOR_KEY_BYTES; i++)
        turned[i] = key->bytes[(offset + i) % XOR_KEY_BYTES];
    uint64_t mask, word;
    memcpy(&mask, turned, sizeof mask);
    if (mask == 0)
        return;
    size_t at = 0;
    for (; at + sizeof word <= count; at += sizeof word) {
        memcpy(&word, bytes + at, sizeof word);
        word ^= mask;
        memcpy(bytes + at, &word, sizeof word);
    }
    for (; at < count; at++)
        bytes[at] ^= turned[at % XOR_KEY_BYTES];
}
