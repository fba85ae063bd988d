"""Real blocks and reorg sequences, which are not part of this repository: tests use them where they are, and say so where not."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
ABSENT = "absent data: the folder ../shared/data, beside this repository"

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=ABSENT)
