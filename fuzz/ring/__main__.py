"""Invariant: as in ``harness.c``. The campaign against the block ring, the side ring and the block sink."""

from __future__ import annotations

import random
import sys

from fuzz.campaign import main
from fuzz.native import Harness, campaign

HARNESS = Harness(
    name="ring",
    sources=("src/supervm_rt/_native",),
    # Loading libraries and looking into threads' stacks are no part of the ring.
    without=("loader.c", "thread_stack.c"),
    includes=("src/supervm_rt/_native",),
    system="system.h",
)


def seeds() -> dict[str, bytes]:
    """Programs of random operations, in each kind of world."""
    found = {}
    for number in range(64):
        source = random.Random(number)
        end = source.randrange(8) | (128 if number % 2 else 0)
        found[f"honest-{number}" if number % 2 == 0 else f"lying-{number}"] = bytes([8, 0, end]) + source.randbytes(600)
    release, fill, take, keep = bytes([5, 0x10, 0x00, 0]), bytes([2, 0xFF, 0xC7, 0, 0x02]), bytes([10]), bytes([11, 0])
    found["kept-externals"] = bytes([8, 0, 0]) + release * 20 + take + (fill + take) * 8
    found["kept-frames"] = bytes([8, 0, 0]) + (bytes([0, 0x00, 0xC0, 0]) + take) * 12
    found["pinned-frames"] = bytes([8, 0, 0]) + (bytes([0, 0x00, 0xC0, 0]) + take + keep) * 12
    found["full-side-ring"] = bytes([8, 0, 0]) + bytes([16, 0x24, 9, 0]) * 5 + bytes([17]) * 5
    for failure in range(16):
        found[f"failing-{failure}"] = bytes([8, 16 | failure, 0]) + random.Random(failure).randbytes(60)
    for kind in range(8):
        found[f"refused-{kind}"] = bytes([4, kind << 5, 0])
    found["full"] = bytes([0, 255, 0])
    return found


CAMPAIGN = campaign(HARNESS, seeds=seeds, max_length=512)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
