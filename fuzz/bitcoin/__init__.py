"""Invariant: as in ``harness.c``: any bytes are refused, or give columns from which the very same bytes come back."""
