"""What this machine offers for a sandbox: asked once, told as it is."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import threading
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import supervm_rt
from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import HostError
from supervm_rt.transports.native.child.cgroups import Bases, find_bases

FIRST_USER = 2_000_000_000
USERS = 100_000_000
"""As root each plugin gets a user of its own from this range, which no account of a usual machine is in."""
NOBODY = 65_534
_PROBE_SECONDS = 10

LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
LINKER_CACHE = "/etc/ld.so.cache"

_LANDLOCK_CREATE_RULESET = 444


@dataclass(frozen=True, slots=True)
class Machine:
    """How plugins can be confined here."""

    bubblewrap: str | None
    """The program; None: it cannot make namespaces here, and only the degraded mode is left."""
    why_degraded: str
    """What bubblewrap said, where there is none."""
    disables_namespaces: bool
    """It knows --disable-userns."""
    landlock: int
    """The version of Landlock; 0: none."""
    bases: Bases | None
    """Where control groups can be made; None: nowhere."""


_programs: dict[str, SealedLibrary] = {}
_turn = threading.RLock()
"""Each of these is found out once, whatever number of threads asks at once."""


def program(name: str) -> SealedLibrary:
    """A program that comes with supervm-rt, read once and sealed: what was read is what runs, whatever becomes of the file.

    Raises HostError.
    """
    path = Path(supervm_rt.__file__).resolve().parent / "bin" / name
    with _turn:
        try:
            if name not in _programs:
                _programs[name] = SealedLibrary(path.read_bytes())
            return _programs[name]
        except OSError as error:
            raise HostError(
                f"{path} cannot be read ({error.strerror})", remedy="install supervm-rt anew, or run make build in a clone of it"
            ) from None


def launch_command() -> list[str]:
    """The program that prepares every sandbox, by a path that a child of this process can execute."""
    return [f"/proc/{os.getpid()}/fd/{program('supervm-launch').fd}"]


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0: none."""
    version = ctypes.CDLL(None, use_errno=True).syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    return max(int(version), 0)


def user_for(plugin: str) -> int | None:
    """The unprivileged user (and group) that a plugin's process is dropped to; None: the host is no root, it keeps its own.

    The same name has the same user in every run.
    """
    if os.geteuid() != 0:
        return None
    wanted = FIRST_USER + zlib.crc32(plugin.encode()) % USERS
    return wanted if _is_mapped(wanted) else NOBODY


def _is_mapped(user: int) -> bool:
    """Whether this user exists in the host's own user namespace."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= user < first + count:
            return True
    return False


def machine() -> Machine:
    """Tries what there is, by making an empty sandbox once. Raises HostError where bubblewrap is not there."""
    with _turn:
        return _try_machine()


@cache
def _try_machine() -> Machine:
    bubblewrap = shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin")
    if bubblewrap is None:
        raise HostError(
            "bubblewrap is not installed, and no plugin can be sandboxed without it", remedy="apt-get install bubblewrap"
        )
    try:
        version = subprocess.run(
            [bubblewrap, "--version"], capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{bubblewrap} does not say its version ({error})", remedy="reinstall bubblewrap") from None
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    disables = numbers >= (0, 8)
    user = user_for("probe")
    command = launch_command()
    if user is not None:
        command += ["--user", str(user), str(user)]
    command += ["--", bubblewrap, *namespaces(disables=disables), *library_binds(), "--remount-ro", "/"]
    # The dynamic linker is a program that is always there, and asking its version does nothing.
    command += ["--", _linker(), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL)
        why = "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"it did not answer within {_PROBE_SECONDS} s"
    return Machine(
        bubblewrap=None if why else bubblewrap,
        why_degraded=why,
        disables_namespaces=disables,
        landlock=landlock_version(),
        bases=find_bases(),
    )


def _linker() -> str:
    """The dynamic linker of this very interpreter, as every program names it."""
    for line in Path("/proc/self/maps").read_bytes().split(b"\n"):  # names are any bytes
        path = os.fsdecode(line.rpartition(b" ")[2])
        if re.fullmatch(r"ld(-linux.*|-musl.*|-\d.*)?\.so(\.\d+)?", path.rpartition("/")[2]):
            return path
    raise HostError("this interpreter has no dynamic linker", remedy="use a dynamically linked Python")


def namespaces(*, disables: bool) -> list[str]:
    """The options of bubblewrap that every sandbox has. Whoever starts it makes it a session of its own: see ``ending.kill``."""
    return [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *(("--disable-userns",) if disables else ()),
        *("--die-with-parent", "--cap-drop", "ALL", "--clearenv", "--hostname", "plugin"),
    ]


def library_folders() -> list[str]:
    """Where shared libraries lie on this machine."""
    return [folder for folder in LIBRARY_FOLDERS if Path(folder).is_dir()]


def library_binds() -> list[str]:
    """The options that make shared libraries visible, and nothing else."""
    options: list[str] = []
    for folder in library_folders():
        path = Path(folder)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), folder]
        else:
            options += ["--ro-bind", folder, folder]
    if Path(LINKER_CACHE).is_file():
        options += ["--ro-bind", LINKER_CACHE, LINKER_CACHE]
    return options
