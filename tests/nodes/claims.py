"""A block as a translator gets it, from bytes at hand."""

from __future__ import annotations


class Claims(bytes):
    """A block's bytes, beside which nothing is claimed."""

    hash = b""
    parent = b""
    height: int | None = None
    time: int | None = None
    weight: int | None = None
