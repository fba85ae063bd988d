"""Where the tests find a real bitcoind, and what they say where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bitcoind_folder() -> Path:
    """The folder that holds bitcoind: SUPERVM_BITCOIND, or what ``make nodes`` fetched."""
    named = os.environ.get("SUPERVM_BITCOIND")
    folder = Path(named) if named else ROOT / "build" / "nodes" / "bitcoind"
    if os.access(folder / "bitcoind", os.X_OK):
        return folder
    reason = f"no bitcoind in {folder}: run `make nodes`, or set SUPERVM_BITCOIND to a folder that holds one"
    if named or os.environ.get("CI") == "true" or os.environ.get("SUPERVM_REQUIRE_NODES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
