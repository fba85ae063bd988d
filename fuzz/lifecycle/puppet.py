"""The plugin that the lifecycle machine drives: what it does in each call, what it was asked, and its library."""

from __future__ import annotations

import ctypes
import enum
import fcntl
import functools
import mmap
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import supervm_rt
from supervm_rt.trust.policy import Placement

SOURCE = Path(__file__).parent / "puppet.c"
PLACEHOLDERS = (0x53564D2D50555050, 0x53564D2D48455245)
"""Of the control block's address, and of what it says to a plugin in a process of its own."""
BLOCKS = 20
"""How many a worker that publishes sends in one life."""
NOTES = 4096
ID = "org.example.puppet"


class Does(enum.IntEnum):
    """What a call does."""

    WELL = 0
    FAILS = 1
    SLOW = 2
    WAITS = 3
    """Until plugin_stop is called."""
    HANGS = 4
    DISAGREES = 5
    """A manifest that is another plugin's."""


class Works(enum.IntEnum):
    """What the plugin's own thread does between start and stop."""

    NOT = 0
    PUBLISHES = 1
    FLOODS = 2
    ASKS_FOR_SHUTDOWN = 3
    GIVES_UP = 4
    CHATTERS = 5
    STAYS = 6
    """Longer than plugin_stop."""
    KEEPS_A_RESERVATION = 7


CALLS = ("constructor", "manifest", "init", "start", "stop", "destructor")
LETTERS = "CMISTD"
"""How each of these is noted."""

in_use: list[Puppet] = []
"""Those whose memory a library may still use, for the life of the process."""


@dataclass(frozen=True, slots=True)
class Part:
    """How one plugin behaves."""

    manifest: Does = Does.WELL
    init: Does = Does.WELL
    start: Does = Does.WELL
    stop: Does = Does.WELL
    constructor: Does = Does.WELL
    destructor: Does = Does.WELL
    works: Works = Works.PUBLISHES
    early: int = 0
    """Blocks published inside plugin_init."""
    broken: bool = False
    """Half of the library is missing."""

    def may_leave(self, placement: Placement) -> bool:
        """Whether it may leave something behind that cannot be taken away: with a process of its own all of it goes."""
        return placement is Placement.IN_PROCESS and self.may_be_abandoned

    @property
    def hangs(self) -> bool:
        """Whether a call does not return by itself."""
        return any(getattr(self, call) in {Does.HANGS, Does.WAITS} for call in CALLS)

    @property
    def may_be_abandoned(self) -> bool:
        """Whether it may leave something behind that cannot be taken away."""
        return self.hangs or self.works in {Works.STAYS, Works.KEEPS_A_RESERVATION}

    def __str__(self) -> str:
        said = [f"{call} {getattr(self, call).name.lower()}" for call in CALLS if getattr(self, call)]
        said += [f"{self.early} blocks in init"] * (self.early > 0) + ["broken library"] * self.broken
        return ", ".join([*said, f"works: {self.works.name.lower()}"])


class Control(ctypes.Structure):
    """The memory that the plugin reads and writes; see puppet.c."""

    _fields_ = (
        *((call, ctypes.c_uint8) for call in CALLS),
        ("worker", ctypes.c_uint8),
        ("early", ctypes.c_uint8),
        ("released", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("noted", ctypes.c_uint32),
        ("published", ctypes.c_uint64),
        ("notes", ctypes.c_char * NOTES),
    )


def _never_freed(length: int) -> int:
    """The address of so many bytes, all zero."""
    make = ctypes.CDLL(None).mmap
    make.restype = ctypes.c_void_p
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = make(None, ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_WRITE, anonymous, -1, ctypes.c_long(0))
    if address in {None, ctypes.c_void_p(-1).value}:
        raise MemoryError
    return int(address)


class Puppet:
    """One plugin. The control block must outlive its library: it stays until somebody knows that nothing of that is left.

    ``storage``: that of a plugin in a process of its own; None: it is in this one.
    ``lasting``: it outlives Python too, for a library that is still mapped, and whose destructor runs, when the process ends.
    """

    def __init__(self, part: Part, *, lasting: bool = False, storage: Path | None = None) -> None:
        in_use.append(self)
        self.part = part
        self._storage = storage
        self._given_up = 0
        values = {call: int(getattr(part, call)) for call in CALLS} | {"worker": int(part.works), "early": part.early}
        self.control = Control.from_address(_never_freed(ctypes.sizeof(Control))) if lasting else Control()
        for name, value in values.items():
            setattr(self.control, name, value)

    def code(self) -> bytes:
        """The library, made for this plugin alone."""
        code = library()
        address = ctypes.addressof(self.control) if self._storage is None else 0
        for placeholder, value in zip(PLACEHOLDERS, (address.to_bytes(8, "little"), bytes(self.control)[:8]), strict=True):
            written = placeholder.to_bytes(8, "little")
            if code.count(written) != 1:
                raise AssertionError("the library does not hold its placeholder once")
            code = code.replace(written, value)
        return code[: len(code) // 2] if self.part.broken else code

    def folder(self, where: Path) -> Path:
        """Writes the plugin's folder."""
        where.mkdir()
        (where / "plugin.so").write_bytes(self.code())
        fields = {
            "id": ID,
            "name": "puppet",
            "version": '"1.0.0"',
            "chain": "dev",
            "capabilities": "[block_stream]",
            "binary": "./plugin.so",
            "restart": "never",
            "security": "{sandbox: false}" if self._storage is None else "{sandbox: true}",
            "resources": "{}" if self._storage is None else "{storage: 1MiB}",
        }
        (where / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
        return where

    @property
    def lives(self) -> list[str]:
        """What was called, life by life: each call's letter, small where it returned."""
        if self._storage is None:
            noted = self.control.notes[: min(self.control.noted, NOTES)].decode()
        else:
            noted = self._kept("notes").decode()
        return [f"C{life}" for life in noted.split("C")[1:]]

    @property
    def hanging(self) -> bool:
        """Whether a call does not return at present: one of a life that has not been given up."""
        if self._storage is None:
            return any(
                letter in life and letter.lower() not in life and getattr(self.part, call) in {Does.HANGS, Does.WAITS}
                for life in self.lives[self._given_up :]
                for call, letter in zip(CALLS, LETTERS, strict=True)
            )
        try:
            with (self._storage / "hanging").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False

    def give_up_life(self) -> None:
        """What the present life has called may never return, and nobody waits for it any more."""
        self._given_up = len(self.lives)

    @property
    def published(self) -> int:
        """Blocks that the host took, over all lives."""
        return int(self.control.published) if self._storage is None else int.from_bytes(self._kept("published"), "little")

    def _kept(self, name: str) -> bytes:
        """What is in a file of its storage."""
        assert self._storage is not None
        path = self._storage / name
        return path.read_bytes() if path.exists() else b""

    def release(self) -> None:
        """Lets everything that hangs go on."""
        self.control.released = 1

    def forget(self) -> None:
        """Nothing of its library is left."""
        in_use.remove(self)


@functools.cache
def library() -> bytes:
    """Compiles the plugin, once."""
    with tempfile.TemporaryDirectory(prefix="supervm-puppet-") as folder:
        target = Path(folder) / "puppet.so"
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, f"-I{supervm_rt.get_include()}", "-pthread", "-o", str(target), str(SOURCE)], check=True)
        return target.read_bytes()
