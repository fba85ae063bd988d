"""Compiles what the bench has in C, into ``build/bench``."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "bench" / "native"
TARGET = ROOT / "build" / "bench" / "native"
FLAGS = ("-std=c11", "-O2", "-g1", "-Wall", "-Wextra", "-fPIC", "-shared", "-pthread", f"-I{ROOT / 'include'}", f"-I{NATIVE}")


def build() -> None:
    """Makes the publishing plugin, the library that calls back with its cffi module, and the reading side."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in ("publisher", "callback"):
        _run(["gcc", *FLAGS, str(NATIVE / f"{name}.c"), "-o", str(TARGET / f"{name}.so")])
    for module, make in (("_reading", _build_reading), ("_callback_cffi", _build_cffi)):
        if _newest(NATIVE) > _newest(TARGET, module + sysconfig.get_config_var("EXT_SUFFIX")):
            make()
    sys.path.insert(0, str(TARGET))


def _newest(folder: Path, pattern: str = "*") -> float:
    return max((path.stat().st_mtime for path in folder.glob(pattern)), default=0.0)


def _build_reading() -> None:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        "_reading",
        [str(NATIVE / "_reading.pyx")],
        include_dirs=[str(NATIVE)],
        libraries=["crypto"],
        extra_compile_args=["-O3", "-g1"],
    )
    directives = {"language_level": 3, "boundscheck": False, "wraparound": False}
    modules = cythonize([extension], build_dir=str(TARGET), compiler_directives=directives, quiet=True)  # type: ignore[no-untyped-call]
    command = build_ext(Distribution({"ext_modules": modules}))
    command.build_lib = str(TARGET)
    command.build_temp = str(TARGET / "temporary")
    command.ensure_finalized()
    command.run()


def _build_cffi() -> None:
    import cffi

    builder = cffi.FFI()
    builder.cdef(
        """
        struct callback_block { uint64_t height; const uint8_t *payload; uint64_t length; ...; };
        int publish_all(void (*on_block)(const struct callback_block *block), uint64_t count, uint64_t length, uint32_t cpu);
        extern "Python" void on_block(const struct callback_block *block);
        """
    )
    builder.set_source(
        "_callback_cffi",
        '#include "callback.h"',
        sources=[str(NATIVE / "callback.c")],
        include_dirs=[str(NATIVE)],
        extra_compile_args=["-O2", "-std=c11"],
    )
    builder.compile(tmpdir=str(TARGET), verbose=False)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
