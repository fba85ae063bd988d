"""Faults of the plugin that reads block files."""

from __future__ import annotations

from faults.fault import Fault

PLUGIN = "plugins/bitcoin-blockfiles"
READING = ("pytest", "tests/plugins/test_reading.py")
RESUMING = ("pytest", "tests/plugins/test_resuming.py")

FAULTS = (
    Fault(
        "key-turned-wrongly",
        "the XOR key begins anew at each read",
        f"{PLUGIN}/xor_key.c",
        "turned[i] = key->bytes[(offset + i) % XOR_KEY_BYTES];",
        "turned[i] = key->bytes[(0 * offset + i) % XOR_KEY_BYTES];",
        READING,
    ),
    Fault(
        "last-block-of-zeros-left-out",
        "a block that ends in many zeros is not given although the file ends with it",
        f"{PLUGIN}/record.c",
        "    if (end == file->size && !(file->growing && file->size % SMALLEST_CHUNK == 0))\n        return RECORD_COMPLETE;\n",
        "",
        READING,
    ),
    Fault(
        "largest-block-left-out",
        "a block of exactly the longest length counts as damage",
        f"{PLUGIN}/record.c",
        "if (*length < RECORD_MIN_BLOCK || *length > RECORD_MAX_BLOCK)",
        "if (*length < RECORD_MIN_BLOCK || *length >= RECORD_MAX_BLOCK)",
        READING,
    ),
    Fault(
        "header-across-two-pieces-overlooked",
        "the search behind damage skips what a piece's end cuts",
        f"{PLUGIN}/record.c",
        "        at += begins;\n",
        "        at += count;\n",
        READING,
    ),
    Fault(
        "rewritten-file-not-noticed",
        "blocks that a node wrote over are never read",
        f"{PLUGIN}/record.c",
        "return record_fingerprint(first, last, length) == fingerprint ? RECORD_COMPLETE : RECORD_NONE;",
        "return record_fingerprint(first, last, length) != 0 || fingerprint ? RECORD_COMPLETE : RECORD_NONE;",
        RESUMING,
    ),
    Fault(
        "position-of-another-version-believed",
        "bytes of an unknown form are taken for a place in the files",
        f"{PLUGIN}/position.c",
        "if (bytes[0] != FORMAT_VERSION || bytes[1] > FLAG_OVERFLOW)",
        "if (bytes[1] > FLAG_OVERFLOW)",
        RESUMING,
    ),
)
