"""Invariant: as in ``harness.c``: any bytes are refused, or give what a slow and simple reader finds in them."""
