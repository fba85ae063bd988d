"""Faults that only a crash at the right moment shows."""

from __future__ import annotations

from typing import Final

from faults.fault import Fault

_DATABASE: Final = "src/supervm_rt/store/database.py"
_FRESH: Final = ("tests.crash", "--start", "fresh", "--first")

FAULTS: tuple[Fault, ...] = (
    Fault(
        name="commits-not-synced",
        meaning="what was acknowledged is in the log of the page cache only, and goes with the power",
        file=_DATABASE,
        old="{'FULL' if durable else 'OFF'}",
        new="{'NORMAL' if durable else 'OFF'}",
        caught_by=(*_FRESH, "--every", "9", "--action", "power-cut"),
    ),
    Fault(
        name="nothing-synced",
        meaning="the log may reach the disk after the pages that were copied from it",
        file=_DATABASE,
        old="{'FULL' if durable else 'OFF'}",
        new="{'OFF' if durable else 'OFF'}",
        caught_by=(*_FRESH, "--every", "9", "--action", "power-cut"),
    ),
    Fault(
        name="draft-renamed-before-it-was-synced",
        meaning="after a power cut a new store may have its name and none of its pages",
        file=_DATABASE,
        old="        _sync(draft, os.O_RDONLY)\n",
        new="",
        caught_by=(*_FRESH, "--until", "120", "--action", "power-cut"),
    ),
    Fault(
        name="store-made-in-place",
        meaning="a kill while a store is made leaves half of one under its name",
        file=_DATABASE,
        old="    draft = _draft(path)\n    try:\n",
        new="    draft = path\n    try:\n",
        caught_by=(*_FRESH, "--until", "60", "--action", "kill"),
    ),
    Fault(
        name="failed-batch-acknowledged",
        meaning="a batch that the disk had no room for counts as stored",
        file=_DATABASE,
        old='                        connection.execute("ROLLBACK")\n                raise\n',
        new='                        connection.execute("ROLLBACK")\n',
        caught_by=(*_FRESH, "--every", "9", "--action", "enospc"),
    ),
    Fault(
        name="position-in-a-transaction-of-its-own",
        meaning="a kill between the two leaves blocks whose position was not moved behind them",
        file="src/supervm_rt/store/mirror.py",
        old="        if position is not None:\n            connection.execute(",
        new='        if position is not None:\n            connection.execute("COMMIT")\n'
        '            connection.execute("BEGIN IMMEDIATE")\n            connection.execute(',
        caught_by=(*_FRESH, "--every", "2", "--action", "kill"),
    ),
    Fault(
        name="torn-lock-file-in-the-way",
        meaning="a lock file that a crash left half written keeps every later run away",
        file="src/supervm_rt/store/lock.py",
        old='    digits = found.replace(b"\\0", b"").removesuffix(b"\\n")\n',
        new='    digits = found[:-1] if found.endswith(b"\\n") or not found else b"-"\n',
        caught_by=(*_FRESH, "--until", "20", "--action", "kill-half"),
    ),
)
