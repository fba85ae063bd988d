"""The ways a plugin can come, each with the same block files."""

from __future__ import annotations

from pathlib import Path

from fuzz.child_kills.killing import mirror


def native_digest(store: Path) -> str:
    """Of the sample chain, as the native plugin brings it in its sandbox."""
    return mirror(store)
