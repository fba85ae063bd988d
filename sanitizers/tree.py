"""A copy of the project below build/sanitize whose extension, plugins and test plugins are built with sanitizers.

The copy has a ``src`` of its own, so the normal build is left alone. Compilers that tests call are found in ``bin`` first:
scripts that add the flags, and that do not load the sanitizer into the compiler itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.data import SHARED

ROOT = Path(__file__).parents[1]
SANITIZE = "address,undefined"
FLAGS = (f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
BUILT_FROM = ("src", "include", "plugins", "runner", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
ALSO_COPIED = ("tests", "fuzz", "docs", "tools", "Makefile", "constraints.txt")
_NOT_COPIED = shutil.ignore_patterns("*.so", "*.new", "__pycache__", "*.egg-info")


@dataclass(frozen=True, slots=True)
class Tree:
    """Where the copy is."""

    home: Path

    @property
    def project(self) -> Path:
        """The copy itself."""
        return self.home / "tree"

    @property
    def tools(self) -> Path:
        """Compilers that add the flags."""
        return self.home / "bin"

    @property
    def reports(self) -> Path:
        """Where each process writes what its sanitizers found."""
        return self.home / "reports"

    def environment(self) -> dict[str, str]:
        """What a process needs that loads the built code."""
        # The exception handling of C++ has to be there when the sanitizer looks for it, so its library is loaded as early.
        libraries = [_compiler_file("libasan.so"), _compiler_file("libstdc++.so.6")]
        common = f"log_path={self.reports / 'report'}"
        return {
            **os.environ,
            "PATH": os.pathsep.join([str(self.tools), os.environ["PATH"]]),
            "PYTHONPATH": str(self.project / "src"),
            "PYTHONMALLOC": "malloc",  # So that each Python object has bounds, and is searched for references.
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": f"detect_leaks=1:strict_string_checks=1:{common}",
            "LSAN_OPTIONS": f"suppressions={ROOT / 'sanitizers/leaks.txt'}:print_suppressions=0",
            "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:{common}",
            "SUPERVM_SANITIZED": SANITIZE,
        }


def _compiler_file(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit(f"sanitizers: gcc has no {name}: install its development files (on Debian gcc and libstdc++6)")
    return found


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.version.encode())
    digest.update(subprocess.run(["gcc", "--version"], capture_output=True, check=True).stdout)
    for name in BUILT_FROM:
        start = ROOT / name
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _copy(names: tuple[str, ...], project: Path) -> None:
    for name in names:
        target = project / name
        if (ROOT / name).is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / name, target, symlinks=True, ignore=_NOT_COPIED)
        else:
            shutil.copy2(ROOT / name, target)


def _make_tools(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, flags in {"cc": FLAGS, "gcc": FLAGS, "g++": FLAGS, "make": ()}.items():
        real = shutil.which(name)
        if real is None:
            raise SystemExit(f"sanitizers: {name} is not installed")
        script = folder / name
        script.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {real} {" ".join(flags)} "$@"\n')
        script.chmod(0o755)


def build(home: Path = ROOT / "build/sanitize") -> Tree:
    """Brings the copy up to date; what is compiled only where a source of it changed. Raises CalledProcessError."""
    tree = Tree(home.resolve())
    tree.project.mkdir(parents=True, exist_ok=True)
    stamp = home / "built"
    fingerprint = _fingerprint()
    if not stamp.exists() or stamp.read_text() != fingerprint:
        stamp.unlink(missing_ok=True)
        shutil.rmtree(tree.project)
        tree.project.mkdir()
        _copy(BUILT_FROM, tree.project)
        print("building the extension and the plugins with", SANITIZE, flush=True)
        subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
            cwd=tree.project,
            env={**os.environ, "SANITIZE": SANITIZE},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        stamp.write_text(fingerprint)
    _copy(ALSO_COPIED, tree.project)
    _make_tools(tree.tools)
    beside = tree.project.parent / SHARED.parent.name
    if SHARED.is_dir() and not beside.exists():
        beside.symlink_to(SHARED.parent.resolve())
    shutil.rmtree(tree.reports, ignore_errors=True)
    tree.reports.mkdir()
    return tree
