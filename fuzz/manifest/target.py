"""Invariant: any bytes give a manifest, a configuration or an agreement, or the one error that is promised, in one line, at once;
a manifest written out and read again is the same.

The first byte of an input says which reader gets the rest. Two of the kinds make a document of values from the bytes, so that
the engine comes behind the shape of a document quickly.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, cast

import atheris

with atheris.instrument_imports(
    include=["supervm_rt.trust", "supervm_rt.runtime.config", "yaml.constructor", "yaml.composer", "yaml.resolver"],
    enable_loader_override=False,
):
    from supervm_rt.runtime.config import RuntimeConfig
    from supervm_rt.trust.manifest import compare_with_binary, parse_manifest

from fuzz import python
from fuzz.manifest.documents import CONFIGURATION_FIELDS, FIELDS, document
from supervm_rt.errors import ConfigurationError, ManifestError, ManifestMismatch
from supervm_rt.model.manifest import Manifest

# The form of each text, once more and by other means than the schema's.
ID = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9][a-z0-9-]*)+")
VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?")
CHAIN = re.compile(r"[a-z][a-z0-9-]*")
SAMPLE = parse_manifest(b"{id: a.b, name: n, version: 1.0.0, chain: dev, capabilities: [block_stream], binary: x}")
LONGEST_ERROR = 20_000
"""Characters: a few of an input of ten times as many."""


class _Bytes:
    """A path whose file has these bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def open(self, mode: str) -> IO[bytes]:
        assert mode == "rb"
        return io.BytesIO(self.data)

    def resolve(self) -> Path:
        return Path("/folder/node.yaml")

    def __str__(self) -> str:
        return "node.yaml"


def check_error(error: Exception) -> None:
    """One line, not without end, that every terminal can show."""
    text = str(error)
    assert "\n" not in text, text
    assert 0 < len(text) < LONGEST_ERROR, len(text)
    text.encode()


def check_manifest(manifest: Manifest) -> None:
    """What the rest of the program relies on."""
    assert ID.fullmatch(manifest.id), manifest.id
    assert VERSION.fullmatch(manifest.version), manifest.version
    assert CHAIN.fullmatch(manifest.chain), manifest.chain
    assert 1 <= len(manifest.name) <= 100
    if manifest.binary is not None:
        assert manifest.binary
        assert not manifest.binary.startswith("/")
        assert "\0" not in manifest.binary
        assert ".." not in Path(manifest.binary).parts
    for amount in (manifest.resources.cpu, manifest.heartbeat):
        assert amount is None or (0 < amount < math.inf), amount
    for size in (manifest.resources.memory, manifest.resources.storage):
        assert size is None or size >= 0
    for text in (manifest.name, manifest.notes, manifest.signature or "", manifest.binary or ""):
        text.encode()
    again = parse_manifest(render(manifest))
    assert again == manifest, (again, manifest)


def _number(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent}" if exponent else mantissa


def _text(value: str) -> str:
    """A text in quotes, as YAML escapes it."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def render(manifest: Manifest) -> bytes:
    """The manifest as a document."""
    resources = {
        "cpu": None if manifest.resources.cpu is None else _number(manifest.resources.cpu),
        "memory": None if manifest.resources.memory is None else f'"{manifest.resources.memory}B"',
        "storage": None if manifest.resources.storage is None else f'"{manifest.resources.storage}B"',
    }
    security = manifest.security
    said = {
        "id": _text(manifest.id),
        "name": _text(manifest.name),
        "version": _text(manifest.version),
        "chain": _text(manifest.chain),
        "capabilities": _list(sorted(manifest.capabilities)),
        "binary": None if manifest.binary is None else _text(manifest.binary),
        "runMode": _text(manifest.run_mode),
        "resources": "{" + ", ".join(f"{key}: {value}" for key, value in resources.items() if value is not None) + "}",
        "security": f"{{sandbox: {str(security.sandbox).lower()}, seccomp_profile: {_text(security.seccomp_profile)}, "
        f"read_paths: {_list(security.read_paths)}}}",
        "network": f"{{allow: {_list(map(str, manifest.network.allow))}, listen: {_list(map(str, manifest.network.listen))}}}",
        "signature": None if manifest.signature is None else _text(manifest.signature),
        "heartbeat": None if manifest.heartbeat is None else _number(manifest.heartbeat),
        "restart": _text(manifest.restart),
        "notes": _text(manifest.notes),
    }
    return "\n".join(f"{key}: {value}" for key, value in said.items() if value is not None).encode()


def read_manifest(data: bytes) -> None:
    """Of a plugin."""
    try:
        manifest = parse_manifest(data)
    except ManifestError as error:
        check_error(error)
    else:
        check_manifest(manifest)


def read_configuration(data: bytes) -> None:
    """Of a node."""
    try:
        RuntimeConfig.load(cast(Path, _Bytes(data)))
    except ConfigurationError as error:
        check_error(error)


def read_said(data: bytes) -> None:
    """What a binary says of itself."""
    try:
        compare_with_binary(SAMPLE, data)
    except ManifestMismatch as error:
        check_error(error)
    else:
        said: Any = json.loads(data)
        assert said["id"] == SAMPLE.id
        assert sorted(said["capabilities"]) == sorted(SAMPLE.capabilities)


KINDS: tuple[Callable[[bytes], None], ...] = (
    read_manifest,
    read_configuration,
    read_said,
    lambda data: read_manifest(document(FIELDS, data)),
    lambda data: read_configuration(document(CONFIGURATION_FIELDS, data)),
)


def test(data: bytes) -> None:
    """One input."""
    if data:
        KINDS[data[0] % len(KINDS)](data[1:])


if __name__ == "__main__":
    python.run(test)
