"""Invariant: as in ``harness.c``: the host reads what was published, or says that the ring is corrupt."""
