"""Invariant: as in ``harness.c``: every block that is handed over is a framed record of the folder, each exactly once."""
