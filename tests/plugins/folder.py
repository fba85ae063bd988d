"""Block folders made of bytes, and what a reader must find in them, said once more in plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAGIC = bytes.fromhex("fabfb5da")
SMALLEST, LARGEST, ZERO_TAIL = 80, 4_000_000, 64


def record(payload: bytes, magic: bytes = MAGIC) -> bytes:
    """A block as the node frames it."""
    return magic + len(payload).to_bytes(4, "little") + payload


def payload(number: int, size: int = 100) -> bytes:
    """Bytes that stand for a block: distinct by number, none of them zero."""
    return (number.to_bytes(4, "big").replace(b"\0", b"\x7f") + bytes(1 + (number + at) % 255 for at in range(size)))[:size]


def obscure(data: bytes, key: bytes, offset: int = 0) -> bytes:
    """What lies on the disk for plain bytes that begin at this offset of a file."""
    return bytes(byte ^ key[(offset + at) % 8] for at, byte in enumerate(data)) if key else data


@dataclass
class BlocksFolder:
    """A node's ``blocks`` folder. Offsets and writing work as the node's own do: zeros are preallocated raw."""

    path: Path
    key: bytes = b""
    ends: dict[int, int] = field(default_factory=dict)
    """Where the written part of each file ends."""

    def __post_init__(self) -> None:
        self.path.mkdir(exist_ok=True)
        if self.key:
            (self.path / "xor.dat").write_bytes(self.key)

    def file(self, number: int) -> Path:
        return self.path / f"blk{number:05d}.dat"

    def append(self, number: int, data: bytes, *, preallocate: int = 0) -> None:
        """Writes plain bytes behind what was written, as one write; first extends the file by raw zeros to a multiple."""
        end = self.ends.get(number, 0)
        with self.file(number).open("r+b" if self.file(number).exists() else "w+b") as file:
            size = file.seek(0, 2)
            if preallocate and end + len(data) > size:
                file.truncate(-(-(end + len(data)) // preallocate) * preallocate)
            file.seek(end)
            file.write(obscure(data, self.key, end))
        self.ends[number] = end + len(data)

    def finish(self, number: int) -> None:
        """Cuts the preallocated zeros, as the node does when it goes on to the next file."""
        with self.file(number).open("r+b") as file:
            file.truncate(self.ends[number])


def read_file(raw: bytes, key: bytes, magic: bytes = MAGIC) -> list[tuple[int, bytes]]:
    """The blocks of one file that nobody writes to, each with the offset behind it: the rules of record.h and block_file.c."""
    size, written, plain = len(raw), len(raw.rstrip(b"\0")), obscure(raw, key)

    def header(at: int) -> int | None:
        """Length of the record that is there as a whole at this offset."""
        length = int.from_bytes(plain[at + 4 : at + 8], "little")
        if at + 8 > written or plain[at : at + 4] != magic or not SMALLEST <= length <= LARGEST:
            return None
        end = at + 8 + length
        whole = end <= written or end == size or (end < size and end - written <= ZERO_TAIL)
        return length if whole else None

    found: list[tuple[int, bytes]] = []
    at, search_from = 0, 0
    while at < written:
        length = header(at)
        if length is None:
            begun = plain[at : at + 4] == magic and SMALLEST <= int.from_bytes(plain[at + 4 : at + 8], "little") <= LARGEST
            if begun and at + 8 <= written:  # a torn record: the one before it ended where it said
                search_from = at
            following = next((offset for offset in range(search_from, written) if header(offset) is not None), None)
            if following is None:
                break
            at = search_from = following
            continue
        found.append((at + 8 + length, plain[at + 8 : at + 8 + length]))
        search_from, at = at + 8, at + 8 + length
    return found
