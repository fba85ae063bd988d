# cython: embedsignature=True
"""The reading side of the ring's rows, compiled for all of them alike, and the limits in C that they are compared with."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import time

cdef extern from "blocks.h" nogil:
    struct pool:
        uint8_t *bytes
    int pool_fill(pool *pool, uint64_t length)
    const uint8_t *pool_take(const pool *pool, uint64_t number)
    uint64_t touch(const uint8_t *bytes, uint64_t length)

cdef extern from "relay.h" nogil:
    double relay_run(uint64_t length, uint64_t count, uint64_t capacity, uint64_t stretch, int cpu, uint64_t *seen)

cdef extern from *:
    """
    #define OPENSSL_SUPPRESS_DEPRECATED
    #include <openssl/sha.h>
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX *context) nogil
    int SHA256_Update(SHA256_CTX *context, const void *data, size_t length) nogil
    int SHA256_Final(uint8_t *digest, SHA256_CTX *context) nogil

cdef uint64_t seen = 0


def read_frames(list frames):
    """Of each frame its height as a Python number, and one payload byte per cache line through the buffer protocol."""
    global seen
    cdef Py_buffer view
    for frame in frames:
        if frame.height is None:
            return
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        seen += touch(<const uint8_t *>view.buf, view.len)
        PyBuffer_Release(&view)


def read_messages(list messages):
    """The same of messages that begin with the number in eight bytes."""
    global seen
    cdef Py_buffer view
    cdef uint64_t number
    for message in messages:
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        memcpy(&number, view.buf, sizeof(number))
        height = number
        seen += touch(<const uint8_t *>view.buf, view.len)
        PyBuffer_Release(&view)


def read_pairs(list pairs):
    """The same of pairs of a height and a payload."""
    global seen
    cdef Py_buffer view
    for height, payload in pairs:
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        seen += touch(<const uint8_t *>view.buf, view.len)
        PyBuffer_Release(&view)


def copy_limit(uint64_t capacity, uint64_t length, uint64_t count):
    """Seconds for count copies of length bytes, cycling over a buffer of capacity bytes, each read as a frame is."""
    global seen
    cdef pool source
    cdef uint8_t *buffer = <uint8_t *>malloc(capacity)
    cdef uint64_t number, at = 0, total = 0
    if buffer is NULL or pool_fill(&source, length) != 0:
        free(buffer)
        raise MemoryError
    memset(buffer, 1, capacity)
    begun = time.perf_counter()
    with nogil:
        for number in range(count):
            if at + length > capacity:
                at = 0
            memcpy(buffer + at, pool_take(&source, number), length)
            total += touch(buffer + at, length)
            at += length
    elapsed = time.perf_counter() - begun
    seen += total
    free(source.bytes)
    free(buffer)
    return elapsed


def relay_limit(uint64_t length, uint64_t count, uint64_t stretch, int cpu):
    """Seconds for count blocks through a ring of about 16 MiB between two threads, the other one on this CPU. stretch: bytes that
    are copied out at once, a multiple of length; 0: they are read in the ring."""
    global seen
    cdef uint64_t unit = stretch if stretch else length
    cdef uint64_t capacity = max((<uint64_t>16 << 20) // unit, <uint64_t>1) * unit
    cdef double elapsed
    cdef uint64_t total = 0
    with nogil:
        elapsed = relay_run(length, count, capacity, stretch, cpu, &total)
    seen += total
    if elapsed < 0:
        raise MemoryError
    return elapsed


cdef void double_sha256(uint8_t *digest, const uint8_t *data, size_t length) noexcept nogil:
    cdef SHA256_CTX context
    SHA256_Init(&context)
    SHA256_Update(&context, data, length)
    SHA256_Final(digest, &context)
    SHA256_Init(&context)
    SHA256_Update(&context, digest, 32)
    SHA256_Final(digest, &context)


cdef void merkle(uint8_t *hashes, size_t count) noexcept nogil:
    cdef size_t i
    while count > 1:
        if count & 1:
            memcpy(hashes + 32 * count, hashes + 32 * (count - 1), 32)
            count += 1
        count //= 2
        for i in range(count):
            double_sha256(hashes + 32 * i, hashes + 64 * i, 64)


def hash_limit(bytes block, list ids, list witness_ids, int rounds):
    """Seconds for rounds times the double SHA-256 calls that a block needs: header, ids, witness ids, Merkle trees.

    ids and witness_ids: the serialisations that are hashed. witness_ids is empty where no transaction has a witness, else as long
    as ids; an empty one stands for a transaction whose witness id is its id, and for the coinbase. The leaves'
    serialisations are laid end to end first, so that they are read from memory in order as those of a block are.
    """
    cdef bytes joined = b"".join(ids), witness_joined = b"".join(witness_ids)
    cdef size_t count = len(ids), witnesses = len(witness_ids), i
    cdef uint64_t *lengths = <uint64_t *>malloc(8 * (count + witnesses + 1))
    cdef uint8_t *leaves = <uint8_t *>malloc(32 * (count + 1 + witnesses + 2))
    cdef uint8_t *witness_leaves = leaves + 32 * (count + 1)
    cdef const uint8_t *data = joined
    cdef const uint8_t *witness_data = witness_joined
    cdef const uint8_t *header = block
    cdef const uint8_t *at
    cdef uint8_t digest[32]
    cdef int round_
    if lengths is NULL or leaves is NULL:
        raise MemoryError
    for i in range(count):
        lengths[i] = len(ids[i])
    for i in range(witnesses):
        lengths[count + i] = len(witness_ids[i])
    begun = time.perf_counter()
    with nogil:
        for round_ in range(rounds):
            double_sha256(digest, header, 80)
            at = data
            for i in range(count):
                double_sha256(leaves + 32 * i, at, lengths[i])
                at += lengths[i]
            if witnesses:
                memcpy(witness_leaves, leaves, 32 * count)
            merkle(leaves, count)
            if witnesses:
                at = witness_data
                for i in range(witnesses):
                    if lengths[count + i]:
                        double_sha256(witness_leaves + 32 * i, at, lengths[count + i])
                    at += lengths[count + i]
                merkle(witness_leaves, witnesses)
                double_sha256(digest, witness_leaves, 64)
    elapsed = time.perf_counter() - begun
    free(lengths)
    free(leaves)
    return elapsed
