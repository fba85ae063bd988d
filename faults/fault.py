"""What one deliberate fault is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One small mutation of one file, and the command that has to notice it."""

    name: str
    """Words with hyphens; unique."""
    meaning: str
    """What is wrong with the mutated code, in a line."""
    file: str
    """Relative to the project's root."""
    old: str
    """Occurs exactly once in the file."""
    new: str
    caught_by: tuple[str, ...]
    """What follows ``python -m``: ``("pytest", "tests/chain/test_finality.py")``, ``("fuzz.ring", "--seconds", "60")``. It has to
    fail as a test fails (status 1), with the mutation and only with it."""
