"""Invariant: a harness is built from the sources of the tree it is run in, whenever one of them changed.

Harnesses in C: the product's own sources, compiled by clang for libFuzzer with AddressSanitizer and
UndefinedBehaviorSanitizer, or for counting branches.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.campaign import BUILD, Campaign, CampaignError

CHECKED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
COUNTED = ("-O1", "-fprofile-instr-generate", "-fcoverage-mapping")
LINKED = ("-fsanitize=fuzzer",)
COMMON = ("-g", "-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-atomic-alignment", "-pthread")
# The sanitizers' own settings; a failed allocation of an absurd size is an answer, as it is without them.
ENVIRONMENT = {
    "ASAN_OPTIONS": "allocator_may_return_null=1:detect_stack_use_after_return=0:max_allocation_size_mb=1024",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass(frozen=True, slots=True)
class Harness:
    """What is compiled."""

    name: str
    sources: tuple[str, ...]
    """Of the product; folders stand for all their C files."""
    without: tuple[str, ...] = ()
    """Names of files in those folders that are left out."""
    includes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    guided: tuple[str, ...] = ("-fsanitize=fuzzer-no-link",)
    """Flags for the product's files alone: the engine is guided by their branches; those of a harness would only cost time."""
    system: str | None = None
    """A header of the harness that is included before each of the product's files: it takes the place of system calls."""

    @property
    def own(self) -> Path:
        """The folder of the harness."""
        return Path("fuzz") / self.name

    def product(self) -> list[Path]:
        """The product's C files."""
        found: list[Path] = []
        for source in map(Path, self.sources):
            found += sorted(source.glob("*.c")) if source.is_dir() else [source]
        return [path for path in found if path.name not in self.without]

    def headers(self) -> list[Path]:
        """All headers that may matter."""
        folders = {Path("include/supervm"), self.own, *(path.parent for path in self.product())}
        return sorted(path for folder in folders for path in folder.glob("*.h"))


def build(harness: Harness, *, counted: bool = False) -> Path:
    """The program, compiled anew where something changed. Raises CampaignError."""
    clang = shutil.which("clang")
    if clang is None:
        raise CampaignError("clang is not installed: run tools/prepare-machine python3 proving, which installs it")
    product, own = harness.product(), sorted(harness.own.glob("*.c"))
    mode = COUNTED if counted else CHECKED
    flags = [*COMMON, *mode, "-Iinclude", *(f"-I{folder}" for folder in harness.includes)]
    digest = hashlib.sha256("\0".join([*flags, *harness.guided, *harness.libraries, harness.system or ""]).encode())
    for path in [*product, *own, *harness.headers()]:
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    folder = BUILD / harness.name
    program = folder / f"{'counted' if counted else 'checked'}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{program.name.split('-')[0]}-*"):
        old.unlink()
    objects = []
    for number, path in enumerate([*product, *own]):
        target = folder / f"{program.name}-{number}.o"
        guided = harness.guided if path in product else ()
        stand_in = ["-DFUZZ_PRODUCT", "-include", str(harness.own / harness.system)] if harness.system and path in product else []
        _compile([clang, *flags, *guided, *stand_in, "-c", str(path), "-o", str(target)])
        objects.append(target)
    unfinished = program.with_suffix(".new")
    _compile([clang, *flags, *LINKED, *map(str, objects), "-o", str(unfinished), *(f"-l{name}" for name in harness.libraries)])
    for path in objects:
        path.unlink()
    unfinished.rename(program)
    return program


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CampaignError(f"{' '.join(command)}\n{done.stderr}")


def campaign(
    harness: Harness, *, seeds: Callable[[], dict[str, bytes]], max_length: int, flags: tuple[str, ...] = ()
) -> Campaign:
    """The campaign of a harness."""
    return Campaign(
        name=harness.name,
        command=lambda: [str(build(harness))],
        seeds=seeds,
        max_length=max_length,
        flags=flags,
        environment=ENVIRONMENT,
    )
