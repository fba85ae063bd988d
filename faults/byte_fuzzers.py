"""Mutations that the byte fuzzers find within a minute: at least one for each."""

from __future__ import annotations

from faults.fault import Fault

PARSER = "src/supervm_rt/ir/_native/bitcoin.c"


def _campaign(name: str) -> tuple[str, ...]:
    return (f"fuzz.{name}", "--seconds", "60")


FAULTS: tuple[Fault, ...] = (
    Fault(
        "witness-bytes-unbounded",
        "the second pass copies witness items without comparing their bytes with what the first pass counted",
        PARSER,
        "row >= columns->limit.witnesses || length > columns->limit.witness_bytes - totals->witness_bytes",
        "row >= columns->limit.witnesses",
        _campaign("bitcoin"),
    ),
    Fault(
        "last-leaf-not-repeated",
        "a level of the Merkle tree with an odd count pairs its last hash with what lay behind it",
        PARSER,
        "memcpy(hashes + BITCOIN_HASH_BYTES * count, hashes + BITCOIN_HASH_BYTES * (count - 1), BITCOIN_HASH_BYTES);",
        "memset(hashes + BITCOIN_HASH_BYTES * count, 0, BITCOIN_HASH_BYTES);",
        _campaign("bitcoin"),
    ),
    Fault(
        "first-witness-forgotten",
        "decoding leaves out the witness of a block's first input",
        "src/supervm_rt/ir/decode.py",
        "if self._witness is not None and self._witness_item is not None:",
        "if self._witness is not None and self._witness_item is not None and row > 0:",
        _campaign("bitcoin_differential"),
    ),
    Fault(
        "key-at-the-wrong-offset",
        "a block is deobscured with the key as it lies one byte further on",
        "plugins/bitcoin-blockfiles/block_file.c",
        "xor_key_apply(&reader->key, begin, payload, length);",
        "xor_key_apply(&reader->key, begin + 1, payload, length);",
        _campaign("block_files"),
    ),
    Fault(
        "unread-rest-left-out-of-the-position",
        "a position does not say that a lower file has bytes that were not read yet",
        "plugins/bitcoin-blockfiles/reader.c",
        "return file->failed || file->look_again || file->cursor.offset < file->stamp.size;",
        "return file->failed || file->look_again;",
        _campaign("block_files"),
    ),
    Fault(
        "tag-errors-escape",
        "what the constructor of an explicit tag raises for a text it did not expect leaves the reader",
        "src/supervm_rt/trust/documents.py",
        "except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):",
        "except (ValueError, AttributeError, TypeError, ArithmeticError):",
        _campaign("manifest"),
    ),
    Fault(
        "endless-heartbeat",
        "a length of time that is too large to be a number is taken for infinite",
        "src/supervm_rt/trust/units.py",
        "if not math.isfinite(seconds):",
        "if math.isnan(seconds):",
        _campaign("manifest"),
    ),
    Fault(
        "exported-frame-moved",
        "a frame whose buffer is exported is copied out of the ring, and its place written over",
        "src/supervm_rt/_native/reader.c",
        "if (oldest->exports != 0 && !oldest->external)",
        "if (oldest->exports > 1 && !oldest->external)",
        _campaign("ring"),
    ),
    Fault(
        "message-read-twice",
        "the header of a message beside the blocks is judged, and then read again where the plugin can write",
        "src/supervm_rt/_native/side_ring.c",
        "    *text = record + sizeof *header;",
        "    memcpy(header, record, sizeof *header);\n    *text = record + sizeof *header;",
        _campaign("ring"),
    ),
    Fault(
        "landed-record-not-judged",
        "the header that was judged is the one in the ring, not its copy among the host's own",
        "src/supervm_rt/_native/reader.c",
        "    if (!record_is_sound(&frame->header, landed) || frame->header.flags & RECORD_EXTERNAL)\n        return refuse",
        "    if (false)\n        return refuse",
        _campaign("ring"),
    ),
    Fault(
        "tails-beyond-the-record",
        "a record's header is believed although its hash, parent, weight and position do not fit behind the payload",
        "src/supervm_rt/_native/record.h",
        "return stored <= room && record_tails_length(header) <= room - stored;",
        "return stored <= room;",
        _campaign("ring"),
    ),
    Fault(
        "tail-passes-the-pinned-frame",
        "the place after a dropped frame is given back although an older frame still needs its own",
        "src/supervm_rt/_native/reader.c",
        "if (frame->sequence != reader->first)",
        "if (frame->sequence > reader->first + 1)",
        _campaign("ring"),
    ),
    Fault(
        "frame-where-the-plugin-can-write",
        "a frame of a plugin in another process lies in the ring itself, where it may change after it was judged",
        "src/supervm_rt/_native/reader.c",
        "return hand_out(reader, frame, record, landing->next);",
        "return hand_out(reader, frame, ring_at(&reader->ring, position), landing->next);",
        _campaign("ring"),
    ),
    Fault(
        "only-the-first-header-is-judged",
        "of the records that were copied together only the first has to be sound",
        "src/supervm_rt/_native/reader.c",
        "    if (!record_is_sound(&frame->header, landed) || frame->header.flags & RECORD_EXTERNAL)\n",
        "    if (frame->header.flags & RECORD_EXTERNAL)\n",
        _campaign("ring"),
    ),
    Fault(
        "copy-across-the-end",
        "what is copied out of a shared ring does not begin again before the end of the host's own memory",
        "src/supervm_rt/_native/reader.c",
        "    if (to_end < wanted)\n        at += to_end;\n",
        "    (void)to_end;\n",
        _campaign("ring"),
    ),
    Fault(
        "copy-over-a-kept-frame",
        "what is copied out of a shared ring lies over a frame whose buffer is exported",
        "src/supervm_rt/_native/reader.c",
        "    if (at - reader->freed + wanted > capacity)\n        return false;\n",
        "",
        _campaign("ring"),
    ),
)
