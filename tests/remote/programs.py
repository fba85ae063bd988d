"""Plugins with runMode grpc that the host starts, for tests: one program in C, which behaves as it was compiled to."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from supervm_rt import PluginConfig
from tests.remote.images import entry, layer, layout
from tests.remote.messages import HASH, PARENT

SOURCE = Path(__file__).with_name("program.c")
LAUNCHED = "org.example.launched"


def compile_program(target: Path, act: int, *, blocks: int = 10, static: bool = False, granted: str = "") -> None:
    macros = {
        "ACT": act,
        "BLOCKS": blocks,
        "NAME": f'"{LAUNCHED}"',
        "GRANTED": f'"{granted}"',
        "FIELD_HASH": HASH,
        "FIELD_PARENT": PARENT,
    }
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-stringop-truncation", "-pthread", "-o", str(target), str(SOURCE)]
    command += ["-static"] if static else []
    subprocess.run([*command, *(f"-D{name}={value}" for name, value in macros.items())], check=True)


def program(
    folder: Path,
    act: int,
    *,
    image: bool = False,
    links: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    granted: str = "",
    **manifest: str,
) -> PluginConfig:
    """A plugin's folder. ``image``: the program lies in an OCI image, alone but for the links; ``config``: of it."""
    folder.mkdir()
    compile_program(folder / "plugin", act, static=image, granted=granted)
    if image:
        others = (entry(name, kind=tarfile.SYMTYPE, link=target) for name, target in (links or {}).items())
        whole = layer(entry("bin/plugin", (folder / "plugin").read_bytes(), mode=0o755), *others)
        layout(folder / "image", [whole], tag="1.0", config={"Entrypoint": ["/bin/plugin"], **(config or {})})
        (folder / "plugin").unlink()
    fields = {
        "id": LAUNCHED,
        "name": "launched",
        "version": '"1.0.0"',
        "chain": "dev",
        "capabilities": "[block_stream]",
        "runMode": "grpc",
        "binary": '"oci:image:1.0"' if image else "./plugin",
        "restart": "never",
    } | manifest
    (folder / "plugin.yaml").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return PluginConfig(path=folder)
