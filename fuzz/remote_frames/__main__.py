"""Invariant: as in ``harness.c``. The campaign against the decoder of remote plugins' messages."""

from __future__ import annotations

import sys

from fuzz.campaign import main
from fuzz.native import Harness, campaign
from fuzz.remote_differential.seeds import seeds

HARNESS = Harness(
    name="remote_frames",
    sources=("src/supervm_rt/transports/remote/_native",),
    includes=("src/supervm_rt/transports/remote/_native", "src/supervm_rt/_native"),
    system="system.h",
)
CHOICES = range(0, 256, 37)


def inputs() -> dict[str, bytes]:
    """Each message with a few ways to read it."""
    return {f"{name}-{choice}": bytes([choice]) + message for name, message in seeds().items() for choice in CHOICES}


CAMPAIGN = campaign(HARNESS, seeds=inputs, max_length=2048)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
