"""Invariant: as in ``harness.c``. The campaign against the reader of block files, its settings and its positions."""

from __future__ import annotations

import json
import random
import struct
import sys

from fuzz.campaign import main
from fuzz.native import Harness, campaign

PLUGIN = "plugins/bitcoin-blockfiles"
HARNESS = Harness(
    name="block_files",
    sources=(PLUGIN,),
    # The thread and its waiting have no bytes to read.
    without=("plugin.c", "watch.c"),
    includes=(PLUGIN,),
    # Comparisons are not traced: looking for the end of preallocated zeros is one comparison, many thousand times.
    guided=("-fsanitize=fuzzer-no-link", "-fno-sanitize-coverage=trace-cmp"),
    system="system.h",
)
HONEST, WILD, SETTINGS, POSITION = 0, 3, 6, 7


def seeds() -> dict[str, bytes]:
    """Folders of random histories, settings, and positions."""
    found = {}
    for number in range(48):
        source = random.Random(number)
        found[f"honest-{number}"] = bytes([HONEST, number]) + source.randbytes(120)
        found[f"wild-{number}"] = bytes([WILD, number]) + source.randbytes(200)
    settings: list[dict[str, object]] = [
        {},
        {"blocks_dir": "/a"},
        {"blocks_dir": "/a", "network": "regtest", "follow": True, "start_height": 17},
        {"blocks_dir": "\u00e9\u20ac\U0001f600\n", "follow": "false", "start_height": "2147483647"},
        {"blocks_dir": None, "start_height": -1.5e3},
    ]
    for number, members in enumerate(settings):
        found[f"settings-{number}"] = bytes([SETTINGS]) + json.dumps(members).encode()
        found[f"settings-plain-{number}"] = bytes([SETTINGS]) + json.dumps(members, ensure_ascii=False).encode()
    for count in range(1, 9):
        cursors = b"".join(struct.pack("<IIQQ", file, 80, 88 * (file + 1), file) for file in range(count))
        found[f"position-{count}"] = bytes([POSITION, 1, count & 1]) + cursors
    return found


CAMPAIGN = campaign(HARNESS, seeds=seeds, max_length=320)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
