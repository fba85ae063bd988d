"""The compiled parts of supervm-rt, and the switches of a build: SANITIZE=address,undefined  COVERAGE=1  DEBUG=1."""

import os
from pathlib import Path

from Cython.Build import build_ext, cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("SANITIZE", "")
COVERAGE = os.environ.get("COVERAGE") == "1"
DEBUG = os.environ.get("DEBUG") == "1"
SHIPPED_PLUGINS = ("bitcoin-blockfiles", "hello")


def newer(source: str | os.PathLike[str], target: Path) -> bool:
    """Whether target is older than source, or not there."""
    return not target.exists() or Path(source).stat().st_mtime > target.stat().st_mtime


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


def extension(
    name: str, source: str, native: str, libraries: tuple[str, ...] = (), headers_of: tuple[str, ...] = ()
) -> Extension:
    """One compiled module of a Cython source and a folder of C, rebuilt when any header changes."""
    headers = [str(path) for folder in ("include/supervm", native, *headers_of) for path in sorted(Path(folder).glob("*.h"))]
    return Extension(
        name,
        [source, *sorted(str(path) for path in Path(native).glob("*.c"))],
        include_dirs=["include", native, *headers_of],
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


class Program(Extension):
    """A program that comes with the package. No sanitizer: it runs confined, where a sanitizer cannot."""

    def __init__(self, name: str, sources: list[str], *, static: bool = False) -> None:
        headers = [
            str(path) for folder in ("include/supervm", "src/supervm_rt/_native", "runner") for path in Path(folder).glob("*.h")
        ]
        super().__init__(
            f"supervm_rt.bin.{name}",
            sources,
            include_dirs=["include", "src/supervm_rt/_native"],
            extra_compile_args=[
                "-std=c11",
                "-Wall",
                "-Wextra",
                "-O2",
                "-g1",
                "-fPIE",
                "-fstack-protector-strong",
                "-D_FORTIFY_SOURCE=2",
            ],
            extra_link_args=["-static-pie" if static else "-pie", "-pthread", "-Wl,-z,relro,-z,now"],
            depends=sorted(headers),
        )


# What the plugin's side of the ABI is made of, in the host's process as in the child.
PLUGIN_SIDE = ("entries", "host", "lock", "network", "releaser", "ring", "side_ring", "sink", "slot", "wait")
PROGRAMS = (
    Program(
        "supervm-runner",
        sorted(map(str, Path("runner").glob("c*.c")))
        + ["runner/main.c"]
        + [f"src/supervm_rt/_native/{name}.c" for name in PLUGIN_SIDE],
    ),
    Program("supervm-launch", ["runner/launch.c"]),
    Program("supervm-enter", ["runner/enter.c", "runner/confine.c"], static=True),
)


class BuildExtensions(build_ext):  # type: ignore[misc]  # Cython has no types
    """Gives shipped plugins the names that their manifests say, and links programs as programs."""

    def build_extension(self, extension: Extension) -> None:
        """Compiles and links one module, plugin or program."""
        if not isinstance(extension, Program):
            super().build_extension(extension)
            return
        target = Path(self.get_ext_fullpath(extension.name))
        stale = [path for path in [*extension.sources, *extension.depends] if newer(path, target)]
        if not (self.force or stale):
            return
        objects = self.compiler.compile(
            extension.sources,
            output_dir=str(Path(self.build_temp, target.name)),
            include_dirs=extension.include_dirs,
            extra_postargs=extension.extra_compile_args,
            depends=extension.depends,
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_executable(objects, str(target), extra_postargs=extension.extra_link_args)

    def get_ext_filename(self, fullname: str) -> str:
        """Where the file of a module goes, below the build folder."""
        if fullname.rpartition(".")[2] in SHIPPED_PLUGINS:
            return str(Path(*fullname.split("."))) + ".so"
        if fullname.rpartition(".")[2] in {program.name.rpartition(".")[2] for program in PROGRAMS}:
            return str(Path(*fullname.split(".")))
        filename: str = super().get_ext_filename(fullname)
        return filename


setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[
        *map(shipped_plugin, SHIPPED_PLUGINS),
        *PROGRAMS,
        Extension(
            "supervm_rt.store.feed._pages",
            ["src/supervm_rt/store/feed/_pages.c"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        ),
        *cythonize(  # type: ignore[no-untyped-call]
            [
                extension("supervm_rt._abi", "src/supervm_rt/_abi.pyx", "src/supervm_rt/_native"),
                extension(
                    "supervm_rt.ir._bitcoin", "src/supervm_rt/ir/_bitcoin.pyx", "src/supervm_rt/ir/_native", libraries=("crypto",)
                ),
                extension(
                    "supervm_rt.transports.remote._frames",
                    "src/supervm_rt/transports/remote/_frames.pyx",
                    "src/supervm_rt/transports/remote/_native",
                    headers_of=("src/supervm_rt/_native",),
                ),
            ],
            compiler_directives=directives,
            build_dir="build/cython",
        ),
    ],
)
