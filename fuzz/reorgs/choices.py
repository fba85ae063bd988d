"""Decisions of one step, taken from a few bytes: zeros are the plainest choice, so that a shorter story is a plainer one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

LENGTH = 16
"""Bytes of one step."""


class Choices:
    """Reads the bytes one by one; behind the last there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, limit: int) -> int:
        """From 0 to below ``limit``."""
        value = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return value % limit

    def seldom(self, times: int = 8) -> bool:
        """True once in so many."""
        return self.number(times) == times - 1

    def pick(self, values: Sequence[T]) -> T:
        """One of these, the first where there are zeros."""
        return values[self.number(len(values))]

    def late(self, values: Sequence[T], reach: int) -> T:
        """One of the last ``reach``, the very last where there are zeros; seldom any at all."""
        if self.seldom():
            reach = len(values)
        return values[len(values) - 1 - self.number(min(reach, len(values)))]
