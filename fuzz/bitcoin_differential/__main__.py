"""Invariant: as in ``target``. The campaign of the Bitcoin parser beside python-bitcoinlib."""

from __future__ import annotations

import sys

from fuzz import python
from fuzz.bitcoin.seeds import inputs
from fuzz.campaign import main

AS_IT_IS, MINED, ALL_MINED = 0, 1, 3
LARGEST = 1200


def seeds() -> dict[str, bytes]:
    """The blocks of the campaign ``bitcoin``: as they are, and to be mined again."""
    blocks = {name: data[4:] for name, data in inputs().items() if data[0] == 0 and len(data) <= LARGEST}
    found = {name: bytes([AS_IT_IS]) + block for name, block in blocks.items()}
    return found | {f"mined-{name}": bytes([ALL_MINED]) + block for name, block in blocks.items()}


CAMPAIGN = python.campaign("bitcoin_differential", seeds=seeds, max_length=LARGEST)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
