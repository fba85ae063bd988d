"""What can be known of a plugin library without running any of it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from supervm_rt.errors import LoadError

EXPORTS = ("plugin_get_manifest_json", "plugin_init", "plugin_start", "plugin_stop", "plugin_free_string")
MAX_LIBRARY_BYTES = 1 << 30
MAX_READS = 4_000_000
"""How often a file may be read from while it is looked at: a bound on the time that a hostile one costs."""

CHILD = "run it in a child process (security.sandbox: true)"

DF_TEXTREL = 0x4
DF_1_NODELETE = 0x8
DF_1_PIE = 0x0800_0000
GNU_UNIQUE = "STB_LOOS"
"""pyelftools' name for binding 10."""
MOST_EXTENSIONS = 1_000
LONGEST_EXTENSION_ID = 600
"""Bytes: what the pattern allows, and some around it."""
_PIECE = 256 << 10
_REST = rb"(?:\.[a-z0-9_]{1,64}){1,7}/[0-9]{1,9})\0"
_EXTENSION_IDS = (
    # Each begins with the letters that are looked for, which is fast; what is before them is looked at afterwards.
    re.compile(rb"(supervm(?<![\w.-]supervm)" + _REST),
    re.compile(rb"(com\.(?<![\w.-]com\.)[a-z0-9_-]{1,64}" + _REST),
)


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """What a library says of itself in its dynamic section."""

    size: int
    """Bytes."""
    exports: frozenset[str]
    """Names of the functions and objects that it defines for others."""
    needed: tuple[str, ...]
    """Libraries that it needs, in the order in which they are searched."""
    extensions: tuple[str, ...]
    """Extension ids that occur in it as strings, sorted: those it may ask the host for, or serve."""

    @property
    def missing_exports(self) -> tuple[str, ...]:
        """Which of the five functions of every plugin it lacks."""
        return tuple(name for name in EXPORTS if name not in self.exports)


class _BoundedReader(io.BytesIO):
    """A file in memory that can be read from only so often."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise LoadError("the library's tables are absurdly large", remedy="rebuild it, or strip it")
        return super().read(size)


def _identity(data: bytes) -> tuple[bytes, bytes]:
    """Class and byte order, and machine, of an ELF file."""
    return data[4:6], data[18:20]


def inspect_library(data: bytes, *, shares_process: bool = True) -> LibraryFacts:
    """Looks at a library that is meant to be loaded into this process, or into one of its own.

    Raises LoadError for what is no shared library of this machine and for text relocations, and where it shares the process for
    what could not be unloaded again or be kept apart from other plugins: GNU_UNIQUE symbols, DF_1_NODELETE.
    """
    if data[:4] != b"\x7fELF":
        raise LoadError("the file is not an ELF library", remedy="name the plugin's .so in the manifest")
    if len(data) > MAX_LIBRARY_BYTES:
        raise LoadError(f"the library is larger than {MAX_LIBRARY_BYTES >> 20} MiB", remedy="strip it")
    with Path("/proc/self/exe").open("rb") as own:
        if _identity(own.read(20)) != _identity(data):
            raise LoadError("the library is for another machine", remedy="build it for this one")
    try:
        return _inspect(data, shares_process)
    except LoadError:
        raise
    except Exception as error:  # pyelftools raises whatever a broken file makes it stumble over
        raise LoadError(f"the library is damaged: {type(error).__name__}: {error}", remedy="build or copy it again") from error


def _inspect(data: bytes, shares_process: bool) -> LibraryFacts:
    file: Any = ELFFile(_BoundedReader(data))
    if file["e_type"] != "ET_DYN":
        raise LoadError(f"the file is no shared library ({file['e_type']})", remedy="link it with -shared")
    segment: Any = next((each for each in file.iter_segments("PT_DYNAMIC") if isinstance(each, DynamicSegment)), None)
    if segment is None:
        raise LoadError("the file is statically linked", remedy="link it with -shared")

    needed: list[str] = []
    flags = flags_1 = 0
    text_relocations = False
    for tag in segment.iter_tags():
        match tag.entry.d_tag:
            case "DT_NEEDED":
                needed.append(tag.needed)
            case "DT_FLAGS":
                flags = tag.entry.d_val
            case "DT_FLAGS_1":
                flags_1 = tag.entry.d_val
            case "DT_TEXTREL":
                text_relocations = True

    if flags_1 & DF_1_PIE:
        raise LoadError("the file is a program, not a library", remedy="link it with -shared")
    if shares_process and flags_1 & DF_1_NODELETE:
        raise LoadError("the library asks never to be unloaded (DF_1_NODELETE), so it could not be stopped", remedy=CHILD)
    if text_relocations or flags & DF_TEXTREL:
        raise LoadError("the library's code must be writable while it is loaded (TEXTREL)", remedy="build it with -fPIC")

    exports: set[str] = set()
    for symbol in segment.iter_symbols():
        if symbol["st_shndx"] == "SHN_UNDEF" or not symbol.name:
            continue
        binding = symbol["st_info"]["bind"]
        if shares_process and binding == GNU_UNIQUE:
            raise LoadError(
                f"the library has the process-wide symbol {symbol.name!r} (GNU_UNIQUE), shared with other instances and plugins",
                remedy=f"build it with -fno-gnu-unique, or {CHILD}",
            )
        if binding in {"STB_GLOBAL", "STB_WEAK", GNU_UNIQUE} and symbol["st_other"]["visibility"] in {
            "STV_DEFAULT",
            "STV_PROTECTED",
        }:
            exports.add(symbol.name)
    return LibraryFacts(
        size=len(data),
        exports=frozenset(exports),
        needed=tuple(needed),
        extensions=tuple(sorted(_extensions(data))),
    )


def _extensions(data: bytes) -> set[str]:
    """The extension ids in it. In pieces, between which others have their turn. Raises LoadError for more than there can be."""
    found: set[str] = set()
    for begin in range(0, len(data), _PIECE):
        piece = data[max(begin - LONGEST_EXTENSION_ID, 0) : begin + _PIECE]
        for pattern in _EXTENSION_IDS:
            # What is before the first byte of a piece is not known: but what begins there lay whole in the piece before.
            found.update(match[1].decode("ascii") for match in pattern.finditer(piece) if match.start() > 0 or begin == 0)
        if len(found) > MOST_EXTENSIONS:
            raise LoadError(f"the library holds more than {MOST_EXTENSIONS} extension ids", remedy="build it anew")
    return found
