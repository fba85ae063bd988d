"""Faults of the decoder of remote plugins' messages."""

from __future__ import annotations

from faults.fault import Fault

MESSAGE = "src/supervm_rt/transports/remote/_native/message.c"
FRAME = "src/supervm_rt/transports/remote/_native/frame.c"
TESTS = ("pytest", "tests/remote/test_decoder.py")

FAULTS: tuple[Fault, ...] = (
    Fault(
        "length-compared-after-it-was-added",
        "a field that claims more bytes than are left is read beyond the end of the message",
        MESSAGE,
        "if (length > (size_t)(cursor->end - cursor->at))",
        "if (cursor->at + length > cursor->end + 1)",
        ("fuzz.remote_frames", "--seconds", "60"),
    ),
    Fault(
        "replaced-body-stays",
        "a reorg that took the place of another body has the heights of a reorg that was said before that",
        MESSAGE,
        "message->from_height = message->to_height = message->finalized_height = 0;",
        "message->finalized_height = 0;",
        ("fuzz.remote_frames", "--seconds", "60"),
    ),
    Fault(
        "surrogates-are-text",
        "a text with half a surrogate pair, which Google's protobuf refuses, is taken",
        MESSAGE,
        "uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;",
        "uint8_t high = first == 0xf4 ? 0x8f : 0xbf;",
        TESTS,
    ),
    Fault(
        "small-views",
        "a small block of a batch keeps the whole message alive",
        FRAME,
        "*views = payload.length && payload.length >= kept / FRAME_VIEW_SHARE;",
        "*views = payload.length != 0;",
        TESTS,
    ),
    Fault(
        "view-outlives-its-bytes",
        "a frame that looks into the received bytes does not keep them",
        "src/supervm_rt/transports/remote/_frames.pyx",
        "        Py_INCREF(source)\n        frame.source = <PyObject *>source",
        "        pass",
        (*TESTS, "-k", "references"),
    ),
    Fault(
        "nanoseconds-of-the-last-piece",
        "a timestamp that comes in two pieces is that of the last piece alone",
        MESSAGE,
        "    time->said = true;",
        "    *time = (struct time){.said = true};",
        ("fuzz.remote_differential", "--seconds", "60"),
    ),
)
