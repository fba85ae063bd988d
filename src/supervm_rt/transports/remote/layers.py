"""The members of a layer, out of a tar that nobody vouches for: bounded in bytes, time and memory, whatever its headers say."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Self, cast

MOST_ENTRIES = 200_000
MOST_HEADER_BYTES = 64 << 10
"""Of one header that precedes a file in a layer, a long name or attributes: it is taken into memory as a whole."""
MOST_ATTRIBUTES = 64
"""Of one file, and of all files of a layer."""
CHUNK = 1 << 20
_HOLES = "a file with holes, which can be larger than what was counted"
_PRECEDES = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


@dataclass(slots=True)
class Budget:
    """What may still be unpacked."""

    bytes: int
    check: Callable[[], None]
    """Asked again and again whether to go on: what it raises ends the unpacking."""
    entries: int = MOST_ENTRIES
    number: int = field(default=0)


class Above(Exception):
    """More than may be unpacked."""


class Hashed:
    """Reads a file and hashes it by the way."""

    def __init__(self, file: IO[bytes], check: Callable[[], None]) -> None:
        self._file = file
        self._check = check
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most. Raises what ``check`` raises."""
        self._check()  # what is decompressed to nothing comes out of no other read
        data = self._file.read(size)
        self.digest.update(data)
        return data


class _Bounded:
    """Reads what decompression gives, up to a bound."""

    def __init__(self, source: IO[bytes], budget: Budget) -> None:
        self._source = source
        self._budget = budget

    def read(self, size: int = -1) -> bytes:
        self._budget.check()
        data = self._source.read(size)
        self._budget.bytes -= len(data)
        if self._budget.bytes < 0:
            raise Above
        return data


class _Header(tarfile.TarInfo):
    """A header that is judged before what belongs to it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As tarfile does it. Raises ValueError, which tarfile hands on."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _PRECEDES and not 0 <= header.size <= MOST_HEADER_BYTES:
            raise ValueError(f"{header.size} bytes before a file")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError(_HOLES)
        return header

    def _proc_pax(self, archive: Any) -> Any:
        """Takes attributes as tarfile does, but in one pass: its own ways can take the square of their length.

        Raises ValueError.
        """
        said = _attributes(archive.fileobj.read((self.size + 511) // 512 * 512)[: self.size])
        if self.type == tarfile.XGLTYPE:
            archive.pax_headers.update(said)
            if len(archive.pax_headers) > MOST_ATTRIBUTES:
                raise ValueError(f"more than {MOST_ATTRIBUTES} attributes for all files")
        try:
            following: Any = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None  # not taken for the end of the archive
        attributes = archive.pax_headers | said
        if any(name.startswith("GNU.sparse.") for name in attributes):
            raise ValueError(_HOLES)
        if self.type != tarfile.XGLTYPE:
            following._apply_pax_info(attributes, archive.encoding, archive.errors)
            following.offset = self.offset
            if "size" in attributes:  # where the next header begins
                contents = following.isreg() or following.type not in tarfile.SUPPORTED_TYPES
                archive.offset = following.offset_data + (following._block(following.size) if contents else 0)
        return following


def _attributes(data: bytes) -> dict[str, str]:
    """What records of attributes say: "LENGTH NAME=VALUE" and a line's end each. Raises ValueError."""
    found: dict[str, str] = {}
    at = 0
    while data[at : at + 1] not in {b"", b"\0"}:
        digits, blank, _ = data[at : at + 8].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        name, equals, value = data[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if not equals or data[at + length - 1 : at + length] != b"\n":
            raise ValueError("attributes that are none")
        found[name.decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
        if len(found) > MOST_ATTRIBUTES:
            raise ValueError(f"more than {MOST_ATTRIBUTES} attributes for a file")
        at += length
    return found


def members(source: IO[bytes], budget: Budget) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Each member with its contents, where it is a file. Raises Above, ValueError, and what tarfile and ``source`` raise."""
    bounded = cast("IO[bytes]", _Bounded(source, budget))
    with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Header, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            if member.issparse():
                raise ValueError(_HOLES)
            yield member, archive.extractfile(member) if member.isreg() else None
            vars(archive)["members"] = []  # an archive remembers all that it saw
    while bounded.read(CHUNK):  # what follows the end of the archive counts too
        pass
