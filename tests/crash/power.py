"""What a failure of the machine may leave of a folder: all that was synced, and of the rest whatever part the disk got to.

A model of files and names behind a write-back cache, fed with the journal of ``interpose.c``:

- the content of a file is certain up to its last sync; of each later write any sectors of 512 bytes may be there, in any order,
  and the file may have grown by zeros that nobody wrote;
- names (made, renamed, removed) are certain up to the last sync of the folder; of the later changes any may have happened. A
  synced file whose name was not synced is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

SECTOR: Final = 512
_RECORD: Final = struct.Struct("=c7xQQQQQ")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made."""

    kind: str
    """C create, W write, T truncate, S sync, D sync of the folder, R rename, U unlink, A acknowledged."""
    inode: int
    offset: int
    """T: the size; A: the number."""
    name: str
    other: str
    """R: the new name."""
    data: bytes

    def shape(self) -> tuple[str, int, str, str, int]:
        """What is the same in every run: not how many digits the process id in the lock file has."""
        return self.kind, self.offset, self.name, self.other, 0 if self.name.endswith(".lock") else len(self.data)

    def __str__(self) -> str:
        return " ".join(map(str, self.shape()))


def read_journal(path: Path) -> list[Call]:
    """All calls, in order. A journal whose writer was killed may end within a record, which is left out."""
    data = path.read_bytes()
    calls = []
    at = 0
    while at + _RECORD.size <= len(data):
        kind, inode, offset, *lengths = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + sum(lengths) > len(data):
            break
        parts = []
        for length in lengths:
            parts.append(data[at : at + length])
            at += length
        name, other = (Path(part.decode()).name for part in parts[:2])
        calls.append(Call(kind.decode(), inode, offset, name, other, parts[2]))
    return calls


@dataclass(slots=True)
class _File:
    durable: bytes = b""
    pending: list[Call] = field(default_factory=list)

    def current(self) -> bytes:
        content = bytearray(self.durable)
        for call in self.pending:
            _make(content, call)
        return bytes(content)

    def sync(self) -> None:
        self.durable = self.current()
        self.pending.clear()

    def after_cut(self, random: Random) -> bytes:
        """The durable content with some of what came later."""
        content = bytearray(self.durable)
        manner = random.randrange(4)
        until = random.randint(0, len(self.pending))
        for number, call in enumerate(self.pending):
            match manner:
                case 0:  # in order, the last one torn
                    made = number < until
                    torn = number == until
                case 1:  # some, each wholly
                    made, torn = random.random() < 0.5, False
                case 2:  # some sectors of each
                    made, torn = False, True
                case _:  # the last ones only
                    made, torn = number >= until, False
            if made:
                _make(content, call)
            elif torn:
                for part in _sectors(call):
                    if random.random() < 0.5:
                        _make(content, part)
        if random.random() < 0.3:  # the size is known already, and the bytes are not there yet
            size = len(self.current())
            content += bytes(max(0, size - len(content)))
        return bytes(content)


def _make(content: bytearray, call: Call) -> None:
    size = call.offset if call.kind == "T" else call.offset + len(call.data)
    if len(content) < size:
        content += bytes(size - len(content))
    if call.kind == "T":
        del content[size:]
    else:
        content[call.offset : size] = call.data


def _sectors(call: Call) -> Iterator[Call]:
    if call.kind == "T":
        yield call
        return
    at = 0
    while at < len(call.data):
        end = min(len(call.data), (call.offset + at) // SECTOR * SECTOR + SECTOR - call.offset)
        yield Call("W", call.inode, call.offset + at, call.name, "", call.data[at:end])
        at = end


class Disk:
    """A folder; ``durable`` is what it holds at first."""

    def __init__(self, durable: Path) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, _File] = {}
        self._changes: list[tuple[Call, _File | None]] = []
        self.acknowledged = 0
        for path in sorted(durable.iterdir()):
            file = _File(path.read_bytes())
            self._names[path.name] = file
            self._files[path.stat().st_ino] = file

    def take(self, call: Call) -> None:
        """One call of the journal. The folder's files must still have the inodes that they had at first."""
        match call.kind:
            case "C":
                self._files[call.inode] = file = _File()
                self._changes.append((call, file))
            case "W" | "T":
                self._files[call.inode].pending.append(call)
            case "S":
                self._files[call.inode].sync()
            case "R" | "U":
                self._changes.append((call, None))
            case "D":
                self._names = self._named(self._changes)
                self._changes = []
            case _:
                self.acknowledged = call.offset

    def _named(self, changes: Iterable[tuple[Call, _File | None]]) -> dict[str, _File]:
        names = dict(self._names)
        for call, file in changes:
            match call.kind:
                case "C" if file is not None:
                    names[call.name] = file
                case "R" if call.name in names:
                    names[call.other] = names.pop(call.name)
                case "U":
                    names.pop(call.name, None)
        return names

    def cut(self, random: Random | None) -> dict[str, bytes]:
        """What is left of each file; without ``random`` nothing but what is certain."""
        if random is None:
            return {name: b"" if name.endswith("-shm") else file.durable for name, file in self._names.items()}
        if random.random() < 0.5:
            changes = self._changes[: random.randint(0, len(self._changes))]
        else:
            changes = [change for change in self._changes if random.random() < 0.5]
        left = {name: file.after_cut(random) for name, file in sorted(self._named(changes).items())}
        for name in left:
            if name.endswith("-shm"):  # written through a mapping: anything
                left[name] = random.choice([b"", bytes(32768), random.randbytes(32768)])
        return left
