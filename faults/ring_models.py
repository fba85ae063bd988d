"""Faults of the ring, its reader, its lock and its wake-ups; and two that only the sanitizers see in the extension.

Real threads under sanitizers catch those that a machine shows. A fence that is missing, or a wake-up that is missed in a window
of a few instructions, cannot be relied on to show: x86 has the fence in the atomic operation beside it, or nobody is so quick.
There the evidence is the model's mutation of the name given in the meaning, which ``python -m models`` has to find an error in;
that the C code is what the model says is what the test named here compares, statement by statement.
"""

from __future__ import annotations

from faults.fault import Fault

THREADS = ("pytest", "-x", "tests/native/test_ring_threads.py")
MODELS = ("pytest", "tests/native/test_models.py")
BOTH = ("pytest", "-x", "tests/native")
EXTENSION = ("sanitizers", "extension", "--", "-x", "tests/ir/test_bitcoin_rules.py")

NATIVE = "src/supervm_rt/_native"
FENCE = "    atomic_thread_fence(memory_order_seq_cst);\n"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "tail-published-too-early",
        "a record's place is given back when it is read: the publisher overwrites a frame (ring.pml: TAIL_AT_THE_READ)",
        f"{NATIVE}/reader.c",
        "    reader->ring.read_position = position;\n",
        "    reader->ring.read_position = position;\n    reader->freed = position;\n",
        THREADS,
    ),
    Fault(
        "head-published-before-the-payload",
        "a block can be read before its bytes are there (ring.pml: HEAD_BEFORE_THE_DATA)",
        f"{NATIVE}/sink.c",
        "    append(record + sizeof header, block->payload, header.payload_length);\n"
        "    write_block(record, &header, block);\n    publish_record(slot, length);\n",
        "    write_block(record, &header, block);\n    publish_record(slot, length);\n"
        "    append(record + sizeof header, block->payload, header.payload_length);\n",
        THREADS,
    ),
    Fault(
        "head-stored-relaxed",
        "the head is no release: on x86 nothing goes wrong, the thread sanitizer sees it (ring.pml: HEAD_STORED_RELAXED)",
        f"{NATIVE}/ring.c",
        "ring->head, memory_order_release",
        "ring->head, memory_order_relaxed",
        THREADS,
    ),
    Fault(
        "tail-stored-relaxed",
        "the tail is no release: the publisher may write while the frame is still read; the thread sanitizer sees it",
        f"{NATIVE}/ring.c",
        "&ring->host->tail, position, memory_order_release",
        "&ring->host->tail, position, memory_order_relaxed",
        THREADS,
    ),
    Fault(
        "room-for-one-record-too-many",
        "a publisher counts one alignment more than is free, once it looked at the tail",
        f"{NATIVE}/ring.c",
        "    return ring->capacity - (ring->head - ring->known_tail) >= length;",
        "    return ring->capacity - (ring->head - ring->known_tail) + 64 >= length;",
        THREADS,
    ),
    Fault(
        "copy-is-a-byte-short",
        "a frame that is copied out is written past the end of its copy; the address sanitizer sees it",
        f"{NATIVE}/reader.c",
        "malloc(length);\n    if (!copy)\n        return false;\n    memcpy(copy, frame->record, length);\n",
        "malloc(length - 1);\n    if (!copy)\n        return false;\n    memcpy(copy, frame->record, length);\n",
        THREADS,
    ),
    Fault(
        "copy-is-never-freed",
        "a frame that was copied out leaves its copy behind; the leak sanitizer sees it",
        f"{NATIVE}/reader.c",
        "    } else {\n        free((void *)frame->record);\n    }\n    frame->record = NULL;",
        "    }\n    frame->record = NULL;",
        THREADS,
    ),
    Fault(
        "external-is-never-freed",
        "the record of a payload that went back to its plugin stays; the leak sanitizer sees it",
        f"{NATIVE}/releaser.c",
        "            free(batch);\n",
        "",
        THREADS,
    ),
    Fault(
        "waiting-publisher-is-not-woken",
        "new room wakes nobody",
        f"{NATIVE}/ring.c",
        "        futex_wake_all(&ring->host->space_sequence);\n    }",
        "    }",
        THREADS,
    ),
    Fault(
        "waiter-of-the-lock-is-not-woken",
        "a lock that is given back wakes nobody",
        f"{NATIVE}/sink.c",
        "    owner_lock_notify(&slot->lock);\n",
        "",
        THREADS,
    ),
    Fault(
        "generation-is-used-again",
        "two sleeps have one generation, so that the second is not rung for (doorbell.pml: GENERATION_TOGGLES)",
        f"{NATIVE}/wait.c",
        "void doorbell_retract(const struct doorbell *bell)\n{\n    atomic_fetch_add_explicit",
        "void doorbell_retract(const struct doorbell *bell)\n{\n    atomic_fetch_sub_explicit",
        BOTH,
    ),
    Fault(
        "sleep-is-announced-after-the-look",
        "what is published between the look and the announcement wakes nobody (ANNOUNCE_AFTER_THE_LOOK)",
        f"{NATIVE}/reader.c",
        "    doorbell_announce(&reader->bell);\n    if (reader_look(reader) == 0)\n        return true;\n"
        "    doorbell_retract(&reader->bell);\n",
        "    if (reader_look(reader) == 0) {\n        doorbell_announce(&reader->bell);\n        return true;\n    }\n",
        BOTH,
    ),
    Fault(
        "no-fence-between-tail-and-waiting",
        "the host may not see that a publisher waits, which does not see the new tail (ring.pml: NO_FENCE_IN_FREE)",
        f"{NATIVE}/ring.c",
        f"position, memory_order_release);\n{FENCE}",
        "position, memory_order_release);\n",
        MODELS,
    ),
    Fault(
        "no-fence-between-waiting-and-tail",
        "a publisher may not see the new tail, nor the host that it waits (ring.pml: NO_FENCE_IN_WAIT)",
        f"{NATIVE}/ring.c",
        f"&mine->waiting, 1, memory_order_relaxed);\n    {FENCE}",
        "&mine->waiting, 1, memory_order_relaxed);\n",
        MODELS,
    ),
    Fault(
        "no-fence-between-head-and-bell",
        "a publisher may not see that the host sleeps, which does not see the head (doorbell.pml, lock.pml: NO_FENCE_IN_LEAVE)",
        f"{NATIVE}/sink.c",
        FENCE,
        "",
        MODELS,
    ),
    Fault(
        "no-fence-in-the-announcement",
        "the host may look before its announcement is seen (doorbell.pml: NO_FENCE_IN_ANNOUNCE); not on x86",
        f"{NATIVE}/wait.c",
        f"memory_order_relaxed);\n{FENCE}}}",
        "memory_order_relaxed);\n}",
        MODELS,
    ),
    Fault(
        "no-fence-in-front-of-the-bell",
        "a message or a notice may be stored after the look at the generation (doorbell.pml: NO_FENCE_BEFORE_THE_BELL)",
        f"{NATIVE}/wait.c",
        f"{FENCE}    doorbell_ring(bell);\n",
        "    doorbell_ring(bell);\n",
        MODELS,
    ),
    Fault(
        "no-fence-in-the-lock",
        "a waiter may look at the lock before it is seen to wait (lock.pml: NO_FENCE_IN_TAKE); not on x86",
        f"{NATIVE}/lock.c",
        f"    {FENCE}",
        "",
        MODELS,
    ),
    Fault(
        "wake-up-without-a-new-sequence",
        "a publisher that is about to sleep sleeps through the wake-up (ring.pml: SEQUENCE_NOT_BUMPED)",
        f"{NATIVE}/ring.c",
        "        atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_release);\n",
        "",
        MODELS,
    ),
    Fault(
        "stop-without-a-new-sequence",
        "a publisher that is about to sleep sleeps through the stop (ring.pml: STOP_WITHOUT_A_NEW_SEQUENCE)",
        f"{NATIVE}/ring.c",
        "    atomic_fetch_add_explicit(&ring->host->space_sequence, 1, memory_order_seq_cst);\n",
        "",
        MODELS,
    ),
    Fault(
        "full-ring-does-not-ring",
        "a sleeping host is not told that frames it keeps are in the way (ring.pml: NO_BELL_WHEN_FULL)",
        f"{NATIVE}/ring.c",
        "        doorbell_ring(bell);\n        futex_wait",
        "        futex_wait",
        MODELS,
    ),
    Fault(
        "room-that-comes-free-asleep-is-kept-quiet",
        "a frame that is dropped while the host sleeps does not let the publisher go on (ring.pml: NO_BALANCE_ASLEEP)",
        f"{NATIVE}/reader.c",
        "    if (doorbell_announced(&reader->bell) && !reader->detached)\n        balance(reader);\n",
        "    (void)reader;\n",
        MODELS,
    ),
    Fault(
        "scratch-is-a-byte-short",
        "the parser writes a byte past the memory for its Merkle trees",
        "src/supervm_rt/ir/_native/bitcoin.c",
        "malloc(BITCOIN_HASH_BYTES * leaves * (totals->has_witness ? 2 : 1));",
        "malloc(BITCOIN_HASH_BYTES * leaves * (totals->has_witness ? 2 : 1) - 1);",
        EXTENSION,
    ),
    Fault(
        "scratch-is-never-freed",
        "the parser loses the memory for its Merkle trees at every block",
        "src/supervm_rt/ir/_native/bitcoin.c",
        "    free(scratch);\n",
        "",
        EXTENSION,
    ),
)
