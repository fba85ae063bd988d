"""Invariant: as in ``harness.c``. The campaign against the Bitcoin parser."""

from __future__ import annotations

import sys

from fuzz.bitcoin.seeds import inputs
from fuzz.campaign import main
from fuzz.native import Harness, campaign

HARNESS = Harness(
    name="bitcoin",
    sources=("src/supervm_rt/ir/_native",),
    includes=("src/supervm_rt/ir/_native",),
    libraries=("crypto",),
    system="system.h",
)
CAMPAIGN = campaign(HARNESS, seeds=inputs, max_length=4096)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
