"""A copy of the project with a build of its own, in which one file at a time is made wrong and put right again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.fault import Fault

NEVER_COPIED = frozenset(
    {"build", "dist", ".venv", ".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__"}
)
EXTENSION = ("setup.py", "-q", "build_ext", "--inplace")
BUILD_SECONDS = 600
SWITCHES = ("SANITIZE", "COVERAGE", "DEBUG")
"""Of setup.py: what the tests run is the plain build."""


class FaultError(Exception):
    """A fault, or the tree that it is put into, cannot be used as it is; the text names it and says what to do."""


def check(fault: Fault, root: Path) -> None:
    """Raises FaultError unless the fault's text stands exactly once in its file below ``root``."""
    path = root / fault.file
    if not path.is_file():
        raise FaultError(f"{fault.name}: there is no file {fault.file}: correct the fault's file")
    count = path.read_text(encoding="utf-8").count(fault.old)
    if count != 1:
        raise FaultError(
            f"{fault.name}: the text {fault.old!r} occurs {count} times in {fault.file}, not once: correct the fault's old text"
        )
    if fault.old == fault.new:
        raise FaultError(f"{fault.name}: old and new are the same text: nothing would be wrong")


class Tree:
    """The copy, below ``build/faults``. One process at a time uses it."""

    def __init__(self, root: Path) -> None:
        """Makes nothing yet; see ``open``."""
        self.root = root
        self.path = root / "build/faults/tree"
        self._mark = root / "build/faults/half-way"
        """Stands while a file is wrong: who finds it, begins with a new copy."""

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Brings the copy in line with the project and builds it. Raises FaultError."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise FaultError(f"another run uses {self.path}: wait for its end") from None
            if self._mark.exists():
                shutil.rmtree(self.path)
                self._mark.unlink()
            self._copy()
            if (self.path / "setup.py").exists():
                self._build(EXTENSION)
            yield

    @contextlib.contextmanager
    def mutated(self, fault: Fault) -> Iterator[None]:
        """The copy with this fault in it, built where that is needed. Raises FaultError where it does not build."""
        check(fault, self.path)
        path = self.path / fault.file
        before, stamp = path.read_text(encoding="utf-8"), path.stat()
        products = self._products() if _builder(fault.file) is not None else {}
        self._mark.touch()
        try:
            path.write_text(before.replace(fault.old, fault.new), encoding="utf-8")
            # Another second than before: bytecode is told from its source by whole seconds.
            later = max(time.time(), stamp.st_mtime + 2)
            os.utime(path, (later, later))
            builder = _builder(fault.file)
            if builder is not None:
                self._build(builder, f"{fault.name}: does not build")
            yield
        finally:
            path.write_text(before, encoding="utf-8")
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            self._restore(products)
            self._mark.unlink()

    def _copy(self) -> None:
        """Copies what differs, and so keeps the times of what does not; removes what the project no longer has."""
        kept = set()
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(set(folders) - NEVER_COPIED)
            for name in [*files, *(name for name in folders if (Path(folder) / name).is_symlink())]:
                source = Path(folder) / name
                if name.endswith((".so", ".pyc")):
                    continue
                relative = source.relative_to(self.root)
                kept.add(relative)
                _copy_one(source, self.path / relative)
        for folder, folders, files in os.walk(self.path):
            folders[:] = sorted(set(folders) - NEVER_COPIED)
            for name in files:
                relative = (Path(folder) / name).relative_to(self.path)
                if relative not in kept and not name.endswith(".so"):
                    (self.path / relative).unlink()

    def _build(self, builder: tuple[str, ...], what: str = "the copy of the project does not build") -> None:
        environment = {key: value for key, value in os.environ.items() if key not in SWITCHES}
        command = builder if builder[0] == "make" else (sys.executable, *builder)
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
        if done.returncode != 0:
            raise FaultError(f"{what}:\n{(done.stdout + done.stderr)[-2000:]}")

    def _products(self) -> dict[Path, tuple[bytes, os.stat_result]]:
        """What a build makes, as it is now."""
        found = [*self.path.glob("build/cython/**/*.c"), *self.path.glob("build/lib*/**/*.so")]
        found += [*self.path.glob("src/**/*.so"), *self.path.glob("plugins/**/*.so"), *self.path.glob("src/*/bin/*")]
        return {path: (path.read_bytes(), path.stat()) for path in found if path.is_file() and not path.is_symlink()}

    def _restore(self, products: dict[Path, tuple[bytes, os.stat_result]]) -> None:
        for path, (content, stamp) in products.items():
            if path.stat().st_mtime_ns != stamp.st_mtime_ns or path.stat().st_ino != stamp.st_ino:
                path.unlink()  # a process may still have it mapped
                path.write_bytes(content)
                path.chmod(stamp.st_mode)
                os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def _builder(file: str) -> tuple[str, ...] | None:
    """What has to run after a change of this file; None: nothing."""
    path = Path(file)
    if path.parts[0] == "plugins" and path.suffix in {".c", ".h"}:
        return ("make", "-C", str(Path(*path.parts[:2])))
    if path.parts[0] in {"src", "include", "runner"} and path.suffix in {".c", ".h", ".pyx", ".pxd"}:
        return EXTENSION
    return None


def _copy_one(source: Path, target: Path) -> None:
    if source.is_symlink():
        if target.is_symlink() and target.readlink() == source.readlink():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(source.readlink())
        return
    if not source.is_file():
        return
    if target.is_file() and not target.is_symlink() and target.read_bytes() == source.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(source.stat().st_mode)
