"""An OCI image with this very interpreter, the kit for remote plugins and one script, as an author would make it."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import supervm_rt
from tests.remote.images import Entry, entry, layer, layout

_LEFT_OUT = {
    "__pycache__",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
}
_USED = """
import sys
import supervm_rt.sdk
print("\\n".join({name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}))
"""


def _tree(folder: Path, place: str) -> list[Entry]:
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not _LEFT_OUT & set(parts) and not parts[0].startswith("config-") and path.suffix != ".a":
            found.append(entry(f"{place}/{'/'.join(parts)}", path.read_bytes(), mode=0o755))
    return found


def _libraries(*binaries: Path) -> list[Entry]:
    """What these are linked with, the dynamic linker in its own place."""
    found: dict[str, Path] = {}
    for binary in binaries:
        said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
        for name, path in re.findall(r"^\s*(\S+)(?: => (\S+))? \(0x", said, re.MULTILINE):
            if path or name.startswith("/"):
                found[f"libs/{Path(name).name}" if path else name.lstrip("/")] = Path(path or name)
    return [entry(place, path.read_bytes(), mode=0o755) for place, path in found.items()]


def python_image(folder: Path, script: Path) -> Path:
    """Writes the layout."""
    stdlib, version = Path(sysconfig.get_path("stdlib")), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = Path(sysconfig.get_path("purelib"))
    used = subprocess.run([sys.executable, "-c", _USED], capture_output=True, text=True, check=True).stdout.split()
    python = Path(sys.executable).resolve()
    members = [entry("usr/bin/python3", python.read_bytes(), mode=0o755), *_tree(stdlib, f"usr/lib/{version}")]
    for name in used:
        if (site / name).is_dir():
            members += _tree(site / name, f"app/{name}")
        members += [entry(f"app/{path.name}", path.read_bytes()) for path in site.glob(f"{name}.*") if path.is_file()]
    members += [entry(f"app/{path.parent.name}/METADATA", path.read_bytes()) for path in site.glob("*.dist-info/METADATA")]
    members += _tree(Path(supervm_rt.__file__).parent, "app/supervm_rt")
    members.append(entry("app/plugin.py", script.read_bytes()))
    code = [path for name in used for path in (site / name).rglob("*.so")]
    members += _libraries(python, *stdlib.glob("lib-dynload/*.so"), *Path(supervm_rt.__file__).parent.rglob("*.so"), *code)
    config = {
        "Entrypoint": ["/usr/bin/python3", "/app/plugin.py"],
        "Env": ["PYTHONHOME=/usr", "PYTHONPATH=/app", "LD_LIBRARY_PATH=/libs", "PYTHONDONTWRITEBYTECODE=1"],
    }
    return layout(folder, [layer(*members)], config=config, zipped=False)
