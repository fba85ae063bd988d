"""How much of what costs the host something is let through: so many at once, so many a second in the long run."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """``burst`` at once, ``rate`` a second in the long run."""

    def __init__(self, *, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()
        self.refused = 0

    def take(self, wanted: int) -> int:
        """How many of so many are allowed now; the others are counted as refused."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._rate, self._burst)
        self._at = now
        allowed = min(wanted, int(self._left))
        self._left -= allowed
        self.refused += wanted - allowed
        return allowed
