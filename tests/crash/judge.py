"""What must hold of a store after a crash, and of a run that met an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervm_rt.errors import NotInStore
from supervm_rt.store import Store, digest
from tests.crash.workload import CHAIN, PLUGIN, STORE


@dataclass(frozen=True, slots=True)
class Prefix:
    """A store that was fed so many blocks of the input, and no more."""

    digest: str
    position: str
    """Of the plugin, in hexadecimal digits."""


Prefixes = Mapping[int, Prefix]
"""By the number of blocks, from 1 to all of them."""


class Wrong(AssertionError):
    """An invariant does not hold."""


def contents(folder: Path) -> tuple[int, str, str]:
    """Blocks, digest and position of the store in this folder, as an exclusive reader."""
    with Store.open(folder / STORE, read_only=True) as store:
        found = digest(store, CHAIN)
        return found.blocks, found.hex, (store.position(PLUGIN, CHAIN) or b"").hex()


def check_store(folder: Path, prefixes: Prefixes, *, for_writing: bool) -> int:
    """How many blocks the store in this folder holds. Raises Wrong where no prefix of the input explains it."""
    path = folder / STORE
    if not path.exists():
        return 0
    with Store.open(path, read_only=not for_writing) as store:
        with store.snapshot() as connection:
            report = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if report != ["ok"]:
            raise Wrong(f"the integrity check says {report}")
        position = (store.position(PLUGIN, CHAIN) or b"").hex()
        try:
            found = digest(store, CHAIN)
        except NotInStore:
            blocks = 0
        else:
            blocks = found.blocks
        if blocks == 0:
            if position:
                raise Wrong(f"there is no block, and yet the position {bytes.fromhex(position)!r}")
            return 0
        prefix = prefixes.get(blocks)
        if prefix is None or prefix.digest != found.hex:
            raise Wrong(f"the {blocks} blocks in the store are not what the first {blocks} of the input give")
        if prefix.position != position:
            raise Wrong(f"{blocks} blocks are stored, and the position behind them is {bytes.fromhex(position)!r}")
        return blocks


def check_resumed(folder: Path, prefixes: Prefixes, status: int, output: Path) -> None:
    """After a further run, all has to be there, as if nothing had happened."""
    said = output.with_suffix(".err").read_text()
    if status != 0:
        raise Wrong(f"the further run ended with status {status}: {said[-600:]}")
    blocks = check_store(folder, prefixes, for_writing=False)
    if blocks != len(prefixes):
        raise Wrong(f"the further run ended well with {blocks} of {len(prefixes)} blocks")
    left = {path.name for path in folder.iterdir()} - {STORE, f"{STORE}.lock"}
    if left:
        raise Wrong(f"left behind: {', '.join(sorted(left))}")


def check_words(status: int, stored: int, wanted: int, output: Path) -> str:
    """A run that met an error ends in good order. Returns its last words, empty where it ended well."""
    out, err = (output.with_suffix(ending).read_text() for ending in (".out", ".err"))
    if "Traceback" in err:
        raise Wrong(f"it answered with a traceback: {err[-2000:]}")
    if status == 0:
        if stored != wanted:
            raise Wrong(f"it ended well with {stored} of {wanted} blocks: {err[-600:]}")
        json.loads(out)
        return ""
    last = err.splitlines()[-1:] or [""]
    if status != 1 or out or not last[0].startswith("supervm-rt: ") or err.count("\nsupervm-rt: ") > 1:
        raise Wrong(f"it ended with status {status}, and said {out!r} and {err[-600:]!r}")
    return last[0]
