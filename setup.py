"""The compiled parts of supervm-rt, and the switches of a build: SANITIZE=address,undefined  COVERAGE=1  DEBUG=1."""

import os
from pathlib import Path

from Cython.Build import build_ext, cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("SANITIZE", "")
COVERAGE = os.environ.get("COVERAGE") == "1"
DEBUG = os.environ.get("DEBUG") == "1"
SHIPPED_PLUGINS = ("bitcoin-blockfiles", "hello")

compile_args = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden", "-pthread"]
compile_args += ["-O0", "-g3"] if DEBUG or COVERAGE else ["-O3", "-g1"]
link_args = ["-pthread"]
macros: list[tuple[str, str | None]] = []
directives: dict[str, object] = {"language_level": 3, "freethreading_compatible": False}

if SANITIZE:
    flags = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
    compile_args += flags
    link_args += flags
if COVERAGE:
    compile_args += ["--coverage"]
    link_args += ["--coverage"]
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
    directives["linetrace"] = True
if not DEBUG:
    directives |= {"boundscheck": False, "wraparound": False, "initializedcheck": False}


def extension(name: str, source: str, native: str, libraries: tuple[str, ...] = ()) -> Extension:
    """One compiled module of a Cython source and a folder of C, rebuilt when any header changes."""
    headers = [str(path) for folder in ("include/supervm", native) for path in sorted(Path(folder).glob("*.h"))]
    return Extension(
        name,
        [source, *sorted(str(path) for path in Path(native).glob("*.c"))],
        include_dirs=["include", native],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        libraries=list(libraries),
        depends=headers,
    )


def shipped_plugin(name: str) -> Extension:
    """A plugin that comes with the package: a plain library, built into its own folder (src/supervm_rt/plugins is a link)."""
    return Extension(
        f"supervm_rt.plugins.{name}.{name}",
        sorted(str(path) for path in Path("plugins", name).glob("*.c")),
        include_dirs=["include"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        depends=[str(path) for folder in ("include/supervm", f"plugins/{name}") for path in sorted(Path(folder).glob("*.h"))],
    )


class BuildExtensions(build_ext):  # type: ignore[misc]  # Cython has no types
    """Gives a shipped plugin the name that its manifest says."""

    def get_ext_filename(self, fullname: str) -> str:
        """Where the file of a module goes, below the build folder."""
        if fullname.rpartition(".")[2] in SHIPPED_PLUGINS:
            return str(Path(*fullname.split("."))) + ".so"
        filename: str = super().get_ext_filename(fullname)
        return filename


setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[
        *map(shipped_plugin, SHIPPED_PLUGINS),
        *cythonize(  # type: ignore[no-untyped-call]
            [
                extension("supervm_rt._abi", "src/supervm_rt/_abi.pyx", "src/supervm_rt/_native"),
                extension(
                    "supervm_rt.ir._bitcoin", "src/supervm_rt/ir/_bitcoin.pyx", "src/supervm_rt/ir/_native", libraries=("crypto",)
                ),
            ],
            compiler_directives=directives,
            build_dir="build/cython",
        ),
    ],
)
