"""Faults of the native side: the ring, its wake-ups, the sink, slots and the loader."""

from __future__ import annotations

from faults.fault import Fault

NATIVE = "src/supervm_rt/_native"
FRAMES = ("pytest", "tests/abi/test_frames.py", "-k", "not whatever_is_kept")
PLACES = ("pytest", "tests/abi/test_frames.py", "-k", "place_back_in_any_order or copied_out_when or content_stays")
SINK = ("pytest", "tests/abi/test_sink.py", "-k", "not no_wake_up")
MESSAGES = ("pytest", "tests/abi/test_messages.py")
LOADING = ("pytest", "tests/abi/test_loading.py", "-k", "slot or loaded or two_ or exactly_once or nobody_closed")

FAULTS = (
    Fault(
        "pinned-frame-overwritten",
        "the oldest frame gives its place up although its buffer is out",
        f"{NATIVE}/reader.c",
        "        if (oldest->exports != 0 && !oldest->external)\n            break;\n",
        "",
        FRAMES,
    ),
    Fault(
        "place-reused-too-early",
        "with a frame that is dropped the place of the next one is freed, which is still kept",
        f"{NATIVE}/reader.c",
        "        reader->freed = reader->places[first & reader->place_mask].end;\n",
        "        reader->freed = reader->places[(first + (first + 1 != next)) & reader->place_mask].end;\n",
        PLACES,
    ),
    Fault(
        "room-off-by-one",
        "a record may overlap the oldest one by a line",
        f"{NATIVE}/ring.c",
        "    return ring->capacity - (ring->head - ring->known_tail) >= length;\n",
        "    return ring->capacity - (ring->head - ring->known_tail) + 64 >= length;\n",
        FRAMES,
    ),
    Fault(
        "record-longer-than-what-was-published",
        "a length in shared memory is believed",
        f"{NATIVE}/record.h",
        "if (room < sizeof *header || room > available || room % RING_ALIGNMENT != 0)",
        "if (room < sizeof *header || room % RING_ALIGNMENT != 0)",
        FRAMES,
    ),
    Fault(
        "head-is-believed",
        "a head that lies more than the ring ahead is taken",
        f"{NATIVE}/ring.c",
        "claimed - ring->tail > ring->capacity || ",
        "",
        FRAMES,
    ),
    Fault(
        "sleeps-over-what-was-published-meanwhile",
        "the host announces its sleep and does not look once more",
        f"{NATIVE}/reader.c",
        "    if (reader_look(reader) == 0)\n        return true;\n    doorbell_retract",
        "    if (reader_look(reader) >= 0)\n        return true;\n    doorbell_retract",
        SINK,
    ),
    Fault(
        "doorbell-not-rung",
        "a commit or publish does not wake the host",
        f"{NATIVE}/sink.c",
        "    owner_lock_notify(&slot->lock);\n    doorbell_ring(&slot->bell);\n",
        "    owner_lock_notify(&slot->lock);\n",
        SINK,
    ),
    Fault(
        "commit-larger-than-reserved",
        "a plugin commits bytes that it never reserved",
        f"{NATIVE}/sink.c",
        " || block->payload_length > slot->reserved_payload)",
        ")",
        SINK,
    ),
    Fault(
        "refused-commit-keeps-the-sink",
        "after a wrong commit no thread gets in any more",
        f"{NATIVE}/sink.c",
        "        return leave(slot, SUPERVM_INVALID_ARGUMENT);\n    struct record_header header = block_header(block);\n"
        "    uint64_t length = set_total_length(&header);\n    write_block(slot->reserved_record",
        "        return SUPERVM_INVALID_ARGUMENT;\n    struct record_header header = block_header(block);\n"
        "    uint64_t length = set_total_length(&header);\n    write_block(slot->reserved_record",
        SINK,
    ),
    Fault(
        "publishes-after-the-stop-began",
        "the sink takes blocks of a plugin that is being stopped",
        f"{NATIVE}/sink.c",
        "    *found = slot;\n    if (ring_stopped(slot->ring))\n        return SUPERVM_STOPPING;\n",
        "    *found = slot;\n",
        SINK,
    ),
    Fault(
        "sink-given-without-the-grant",
        "a plugin without block_stream gets the block sink",
        f"{NATIVE}/host.c",
        "return (grants & SLOT_BLOCK_STREAM) ? &slot->block_sink : NULL;",
        "return &slot->block_sink;",
        MESSAGES,
    ),
    Fault(
        "transaction-without-the-grant",
        "a plugin without submit_tx submits transactions",
        f"{NATIVE}/host.c",
        "    if (!(grants & SLOT_SUBMIT_TX))\n        return SUPERVM_NOT_GRANTED;\n",
        "",
        MESSAGES,
    ),
    Fault(
        "later-reason-of-shutdown-wins",
        "a second request overwrites the first reason",
        f"{NATIVE}/host.c",
        "atomic_compare_exchange_strong(&words->shutdown, &not_asked, PLUGIN_SHUTDOWN_ASKED | (uint32_t)reason);",
        "not_asked = atomic_exchange(&words->shutdown, PLUGIN_SHUTDOWN_ASKED | (uint32_t)reason);",
        MESSAGES,
    ),
    Fault(
        "character-cut-in-two",
        "a long log line ends within a UTF-8 character",
        f"{NATIVE}/host.c",
        "    for (int back = 0; back < 3 && ((uint8_t)text[length] & 0xc0) == 0x80; back++)\n        length--;\n",
        "",
        MESSAGES,
    ),
    Fault(
        "payload-never-given-back",
        "the release callback of a zero-copy block is not called",
        f"{NATIVE}/reader.c",
        "        releaser_push(reader->releaser, external);\n",
        "        (void)external;\n",
        ("pytest", "tests/abi/test_release.py", "-k", "comes_back"),
    ),
    Fault(
        "answers-after-stop",
        "calls of a stopped plugin still reach the host",
        "src/supervm_rt/_abi.pyx",
        "        answer = self.call(self.code.stop)\n        slot_close(self.place)\n",
        "        answer = self.call(self.code.stop)\n",
        SINK,
    ),
    Fault(
        "slot-reused-too-early",
        "the slot of a plugin whose code is still mapped is handed out again",
        f"{NATIVE}/slot.c",
        "    atomic_store_explicit(&slot->grants, 0, memory_order_release);\n",
        "    atomic_store_explicit(&slot->grants, 0, memory_order_release);\n    slot->used = false;\n",
        LOADING,
    ),
    Fault(
        "left-thread-overlooked",
        "a library is unmapped while its thread runs",
        "src/supervm_rt/_abi.pyx",
        "            if name == mine:\n                found.append(task)\n            elif name[:4]",
        "            if name == mine and alone == 2:\n                found.append(task)\n            elif name[:4]",
        ("pytest", "tests/abi/test_lifecycle.py", "-k", "a_thread_that_is_left or same_with_another"),
    ),
    Fault(
        "earlier-library-comes-back",
        "two loads have one spelling of the path, so dlopen gives the first again",
        f"{NATIVE}/loader.c",
        "atomic_fetch_add(&loads, 1)",
        "atomic_fetch_add(&loads, 0)",
        LOADING,
    ),
    Fault(
        "manifest-string-not-given-back",
        "plugin_free_string is not called",
        "src/supervm_rt/_abi.pyx",
        "                    self.code.free_string(<char *>text)\n",
        "                    pass\n",
        LOADING,
    ),
)
