"""The one folder that a plugin may write, and what keeps it to its size.

As root it lies in the image of a file system that is as large as was granted, so that the kernel itself enforces the size.
Elsewhere it is a folder that is measured.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.native.child.unnamed import unnamed_bytes

INSIDE = "/storage"
"""Where a plugin finds it; also its working directory."""
FILES = "files"
"""The folder in an image that is shown as the storage."""
MOST_ENTRIES = 10_000
"""Files and folders that may be in it."""
IMAGES = ".images"
"""The folder of images, beside the plugins' folders: no plugin has a name that begins like this."""
LARGEST_IMAGE = 1 << 40
_BLOCK = 4096
_JOURNAL = 4 << 20
_SMALL = 8 << 20
"""Below this there is no room for a journal: the file system is checked at each start instead."""
_USED_SECONDS = 5.0
_INODE = 256
_SECONDS = 120
_TOOLS = ("mke2fs", "e2fsck", "resize2fs")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class Way(enum.StrEnum):
    """How storage is kept to its size."""

    IMAGE = "file system"
    """A file system of this size: what does not fit is not written."""
    FOLDER = "polling"
    """A folder that is looked at once a second."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a plugin's storage is."""

    way: Way
    path: Path
    """The folder or the image."""
    confined: bool = True
    """It is mounted so that nothing in it can be executed or be a device."""


def image_of(folder: Path) -> Path:
    """Where the image of the plugin is whose folder this would be."""
    return folder.parent / IMAGES / f"{folder.name}.ext4"


def make_folder(folder: Path, user: int | None) -> None:
    """Makes it where there is none, closed to others; ``user``: whose it is, None: the host's own. Raises ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o700)
            if user is not None:
                os.fchown(descriptor, user, user)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from None


def _refused(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: it cannot be a plugin's storage ({why})", remedy="check the path, its permissions and the room on its disk"
    )


def make_image(path: Path, size: int) -> None:
    """Makes a file system with room for so many bytes of files, or brings one to this size. Raises ConfigurationError.

    The file is sparse: it takes what is written. Only one that belongs to root is taken, since its kernel will read it.
    """
    wanted = image_bytes(size)
    if wanted > LARGEST_IMAGE:
        raise _refused(path, f"{size} bytes are more than a file system image is made for")
    make_folder(path.parent, 0)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        _make_new(path, size, wanted)
        return
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != 0 or not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise _refused(path, "it is not root's own file")
        if status.st_size != wanted or size < _SMALL:
            _lock(descriptor, path)
            _bring_to(path, status.st_size, wanted)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    """As whoever mounts it does; the life before may still let go of it. Raises ConfigurationError."""
    until = time.monotonic() + _USED_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise _refused(path, "it is in use") from None
            time.sleep(0.005)
        else:
            return


def image_bytes(size: int) -> int:
    """How large a file system must be that so many bytes of files, in ``MOST_ENTRIES`` files at most, fit into."""
    overhead = _entries(size) * _INODE + (512 << 10) + size // 50
    if size >= _SMALL:
        overhead += _JOURNAL + (1 << 20)
    return (size + overhead + _BLOCK - 1) // _BLOCK * _BLOCK


def _entries(size: int) -> int:
    return max(min(MOST_ENTRIES, size // 1024), 64)


def _make_new(path: Path, size: int, wanted: int) -> None:
    new = path.with_suffix(".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.truncate(wanted)
        shape = ("-b", str(_BLOCK), "-I", str(_INODE), "-N", str(_entries(size)), "-m", "0")
        journal = ("-J", f"size={_JOURNAL >> 20}") if size >= _SMALL else ("-O", "^has_journal")
        _run("mke2fs", "-q", "-F", "-t", "ext4", *shape, *journal, "-E", "nodiscard", str(new))
        new.rename(path)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None
    finally:
        new.unlink(missing_ok=True)


def _bring_to(path: Path, present: int, wanted: int) -> None:
    """Checks and resizes a file system that nobody uses. Raises OSError."""
    _run("e2fsck", *(("-f",) if present != wanted else ()), "-p", str(path), accepted=1)
    if present == wanted:
        return
    if wanted > present:
        os.truncate(path, wanted)
    _run("resize2fs", str(path), f"{wanted // 1024}K")
    os.truncate(path, wanted)


def _run(tool: str, *arguments: str, accepted: int = 0) -> None:
    """Raises OSError with what the tool said, where its status is above what is accepted."""
    program = shutil.which(tool, path=_PATH)
    if program is None:
        raise OSError(0, f"{tool} is not installed")
    command = [program, *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS, env={"PATH": _PATH}
        )
    except subprocess.TimeoutExpired:
        raise OSError(0, f"{tool} did not end within {_SECONDS} s") from None
    if done.returncode > accepted or done.returncode < 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(0, f"{tool}: {said[-1] if said else f'status {done.returncode}'}")


def measure(folder: Path) -> tuple[int, int]:
    """(bytes on the disk, files and folders) below it. Follows no link, and stops behind MOST_ENTRIES.

    Raises OSError for what is there and cannot be looked at.
    """
    size = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= MOST_ENTRIES:
        # What is gone, or something else by now, was taken away meanwhile.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entries > MOST_ENTRIES:
                    break
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    size += max(status.st_blocks * 512, status.st_size if stat.S_ISREG(status.st_mode) else 0)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
    return size, entries


def excess(folder: Path, most: int, process: tuple[int, int] | None = None) -> str:
    """What a storage of so many bytes holds that it may not, for a person; empty: nothing.

    ``process``: number and pidfd of the one that may hold files of it which have no name any more.
    """
    try:
        size, entries = measure(folder)
        if process is not None:
            size += unnamed_bytes(*process, folder)
    except OSError as error:
        return f"its storage holds what cannot be measured ({error.strerror})"
    if size > most:
        return f"its storage holds {size} bytes of the {most} that it may"
    return f"its storage holds more than {MOST_ENTRIES} files, the most that it may" if entries > MOST_ENTRIES else ""


# ---- what is possible here ---------------------------------------------------------------------------------------------------


def prepare(folder: Path, size: int, user: int | None, launch: tuple[str, ...] | None) -> Storage:
    """Makes a plugin's storage ready, in the best way that this machine has. Blocks for some milliseconds, the first time longer.

    ``launch``: the command that supervm-launch is started with; None: there are no namespaces to mount anything in.
    Raises ConfigurationError.
    """
    if launch is not None and user is not None and images_work(launch):
        make_image(image_of(folder), size)
        return Storage(Way.IMAGE, image_of(folder))
    make_folder(folder, user)
    if launch is None and user is not None:
        closed = next((parent for parent in folder.resolve().parents if not parent.stat().st_mode & stat.S_IXOTH), None)
        if closed is not None:
            raise _refused(
                folder, f"without namespaces its user {user} comes to it by its path, and {closed} is closed to others"
            )
    return Storage(Way.FOLDER, folder, confined=launch is not None and (user is not None or folders_can_be_mounted(launch)))


@cache
def images_work(launch: tuple[str, ...]) -> bool:
    """Whether this host can mount an image: tries it once."""
    if not all(shutil.which(tool, path=_PATH) for tool in _TOOLS):
        return False
    with tempfile.TemporaryDirectory(prefix="supervm-storage-") as name:
        image = Path(name, "image")
        try:
            _make_new(image, 1 << 20, image_bytes(1 << 20))
        except ConfigurationError:
            return False
        return _launches(launch, "--user", "65534", "65534", "--image", str(image))


@cache
def folders_can_be_mounted(launch: tuple[str, ...]) -> bool:
    """Whether a user without rights can mount a folder of its own in a namespace of its own: tries it once."""
    with tempfile.TemporaryDirectory(prefix="supervm-storage-") as name:
        return _launches(launch, "--write", name)


def _launches(launch: tuple[str, ...], *options: str) -> bool:
    command = [*launch, *options, "--", "/bin/true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
