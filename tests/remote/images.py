"""Makes OCI layouts, good ones and others."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class Entry(tarfile.TarInfo):
    """A member with its contents."""

    data: bytes | None = None


def entry(name: str, data: bytes | None = None, *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> Entry:
    """One member of a layer; its contents go along as ``data``."""
    member = Entry(name)
    member.type, member.linkname, member.mode = kind, link, mode
    if data is not None:
        member.size = len(data)
        member.data = data
    return member


def layer(*members: Entry) -> bytes:
    """A layer as tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            archive.addfile(member, None if member.data is None else io.BytesIO(member.data))
    return file.getvalue()


def layout(
    folder: Path,
    layers: Iterable[bytes],
    *,
    config: dict[str, Any] | None = None,
    tag: str | None = None,
    zipped: bool = True,
    compressed: bool = False,
    nested: bool = False,
) -> Path:
    """Writes an image; into a layout that is there already it is added. ``compressed``: its layers are gzip already."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    suffix = "+gzip" if zipped else ""
    described = []
    for data in layers:
        stored = gzip.compress(data, mtime=0) if zipped and not compressed else data
        described.append(blob(stored, f"application/vnd.oci.image.layer.v1.tar{suffix}"))
    whole = {"architecture": MACHINE, "os": "linux", "config": config or {"Entrypoint": ["/bin/plugin"]}}
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(whole).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": described,
    }
    found = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    if nested:
        other = {**found, "platform": {"os": "linux", "architecture": "mips"}}
        mine = {**found, "platform": {"os": "linux", "architecture": MACHINE}}
        found = blob(json.dumps({"manifests": [other, mine]}).encode(), "application/vnd.oci.image.index.v1+json")
    if tag:
        found["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = folder / "index.json"
    manifests = json.loads(index.read_text())["manifests"] if index.exists() else []
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*manifests, found]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder
