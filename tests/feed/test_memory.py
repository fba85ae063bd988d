"""What consumers that do not come back cost in memory is within what docs/consuming.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from supervm_rt.store.feed.feed import READERS
from supervm_rt.store.feed.reader import PAGE_BYTES, PAGE_EVENTS
from tests.store.support import environment

WITHOUT_BLOCKS = 128 << 10
"""Bytes of a page of events without blocks."""
READ_AT_ONCE = 16 << 20
"""Bytes that reading one page of these blocks may take besides: spent outputs are looked up in blocks of which some are kept."""


def test_stuck_consumers_hold_no_more_than_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.feed.held", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    kinds = json.loads(done.stdout)
    assert len(kinds) == 6
    for kind, found in kinds.items():
        each = WITHOUT_BLOCKS + (PAGE_BYTES + found["block"] if found["block"] else 0)
        bound = found["consumers"] * each
        assert found["held"] <= bound, f"{found['consumers']} consumers {kind} hold {found['held']:,} bytes, not {bound:,}"
        assert found["peak"] <= bound + READERS * (READ_AT_ONCE + each), f"consumers {kind}: {found['peak']:,} bytes at most"
    # They do hold pages: the bound is not kept by holding nothing.
    assert kinds["of the log alone"]["held"] > kinds["of the log alone"]["consumers"] * PAGE_EVENTS * 100
    assert kinds["with a filter"]["held"] > kinds["with a filter"]["consumers"] * PAGE_BYTES / 2
