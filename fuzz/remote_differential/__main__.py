"""Invariant: as in ``comparison``. The campaign of the decoder beside Google's protobuf."""

from __future__ import annotations

import sys

from fuzz import python
from fuzz.campaign import main
from fuzz.remote_differential.seeds import seeds

CAMPAIGN = python.campaign("remote_differential", seeds=seeds, max_length=1024)

if __name__ == "__main__":
    sys.exit(main(CAMPAIGN))
