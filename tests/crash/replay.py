"""``supervm-rt forks replay`` keeps a store in a temporary folder: what an error there does to its answers and to that folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from supervm_rt.cli.main import main
from tests.crash import workload
from tests.crash.judge import Wrong
from tests.crash.shim import Shim

VECTORS: Final = """\
{"mode": "heaviest", "root": {"hash": "a0", "height": 10}, "final_depth": 2, "orphans": 3}
{"hash": "b1", "parent": "a0", "height": 11, "weight": 2}
{"hash": "d2", "parent": "c1", "height": 12, "weight": 2}
{"hash": "c1", "parent": "a0", "height": 11, "weight": 1}
{"restart": true}
{"reorg": {"from_height": 12, "to_height": 11, "orphans": ["c2"]}}
{"hash": "d3", "parent": "d2", "height": 13, "weight": 3}
"""


def replay(shim: Shim, folder: Path, vectors: Path, output: Path, action: str = "", at: int = 0) -> int:
    """One replay in this process, with its temporary folder in ``folder``; the exit status."""
    workload.output_to(output)
    vectors.write_text(VECTORS)
    tempfile.tempdir = str(folder)
    shim.arm(folder, action, at)
    try:
        return main(["forks", "replay", str(vectors), "--json"])
    finally:
        shim.disarm()


def check(status: int, folder: Path, output: Path, right: str, what: str) -> str:
    """All answers or, with a line that says why, the first ones; nothing stays behind. Returns that line."""
    out, err = (output.with_suffix(ending).read_text() for ending in (".out", ".err"))
    if "Traceback" in err:
        raise Wrong(f"it answered with a traceback: {err[-2000:]}")
    if not what.startswith("unlink") and any(folder.iterdir()):
        raise Wrong(f"left behind: {', '.join(path.name for path in folder.iterdir())}")
    if "the answer cannot be written" in err:
        raise Wrong(f"it blames its output, which was not in the way: {err}")
    if status == 0 and out == right and not err:
        return ""
    if status != 1 or not right.startswith(out) or not err.startswith("supervm-rt: ") or err.count("\n") != 1:
        raise Wrong(f"it ended with status {status}, and said {out[-300:]!r} and {err[-600:]!r}")
    return err.strip()
