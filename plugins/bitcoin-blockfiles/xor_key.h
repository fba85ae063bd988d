/* xor_key.h - the eight bytes with which a node (Bitcoin Core from version 28 on) obscures its block files. */
#ifndef XOR_KEY_H
#define XOR_KEY_H

#include <stddef.h>
#include <stdint.h>

#define XOR_KEY_BYTES 8

struct xor_key {
    uint8_t bytes[XOR_KEY_BYTES]; /* All zero where the files are plain. */
};

enum xor_key_status { XOR_KEY_READ, XOR_KEY_NONE, XOR_KEY_WRONG_SIZE, XOR_KEY_UNREADABLE };

/* Reads xor.dat of the folder that is open as folder_fd. XOR_KEY_NONE: there is no such file, and the key is zero. After
 * XOR_KEY_UNREADABLE errno says why. *key is written for the first two answers only. */
enum xor_key_status xor_key_load(struct xor_key *key, int folder_fd);

/* Turns raw bytes that lie at offset of a file into plain ones, in place. */
void xor_key_apply(const struct xor_key *key, uint64_t offset, uint8_t *bytes, size_t count);

#endif
