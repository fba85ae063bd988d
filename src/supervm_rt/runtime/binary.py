"""From a plugin's folder to its manifest and the sealed bytes of its binary: what is verified is what is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import LoadError, ManifestError
from supervm_rt.model.manifest import Manifest, RunMode
from supervm_rt.transports.native.library import LibraryFacts, inspect_library
from supervm_rt.transports.shortage import NO_DESCRIPTOR, host_error
from supervm_rt.trust.documents import MAX_DOCUMENT_BYTES
from supervm_rt.trust.manifest import FILE_NAME, parse_manifest
from supervm_rt.trust.policy import Placement

if TYPE_CHECKING:
    from supervm_rt.transports.remote.images import Layout

MAX_BINARY_BYTES = 512 << 20


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a plugin's folder. Raises ManifestError, HostError."""
    path = folder / FILE_NAME
    data = _read(path, MAX_DOCUMENT_BYTES, ManifestError, "name the folder that holds the plugin's plugin.yaml")
    return parse_manifest(data, source=str(path))


def read_library(folder: Path, manifest: Manifest, placement: Placement) -> SealedLibrary:
    """The native library that the manifest names, sealed. Raises ManifestError, LoadError."""
    data, _ = inspect_binary(folder, manifest, placement)
    return SealedLibrary(data)


def inspect_binary(folder: Path, manifest: Manifest, placement: Placement) -> tuple[bytes, LibraryFacts]:
    """The native library that the manifest names, read once: its bytes, and what they say of it without being run.

    Raises ManifestError, and LoadError for what must not be loaded where it is to run.
    """
    if manifest.run_mode is not RunMode.NATIVE or manifest.binary is None:
        raise ManifestError(
            f"{manifest.id}: with runMode {manifest.run_mode} it has no library", remedy="use a plugin with runMode native"
        )
    if manifest.binary.startswith("oci:"):
        raise ManifestError(f"{manifest.id}: a native plugin's binary is a library, not a container image", remedy="name a .so")
    path = folder / manifest.binary
    data = _read(path, MAX_BINARY_BYTES, LoadError, "build the plugin (make -C its folder), or correct binary in plugin.yaml")
    try:
        return data, inspect_library(data, shares_process=placement is Placement.IN_PROCESS)
    except LoadError as error:
        raise LoadError(f"{path}: {error.message}", remedy=error.remedy) from None


def read_program(folder: Path, manifest: Manifest) -> SealedLibrary | Layout:
    """The executable that the manifest of a remote plugin names, sealed; or the image. Raises ManifestError, LoadError."""
    binary = manifest.binary or ""
    if binary.startswith("oci:"):
        from supervm_rt.transports.remote.images import Layout, split_reference

        place, tag = split_reference(binary.removeprefix("oci:"))
        return Layout(folder / place, tag)
    path = folder / binary
    data = _read(path, MAX_BINARY_BYTES, LoadError, "build the plugin, or correct binary in plugin.yaml")
    if not data.startswith(b"\x7fELF"):
        raise LoadError(f"{path}: not an executable of this system", remedy="name an ELF executable, or an image (oci:PATH)")
    return SealedLibrary(data)


def _read(path: Path, bound: int, error: type[ManifestError | LoadError], remedy: str) -> bytes:
    try:
        # O_NONBLOCK: a FIFO in the place of a file must not hang the host.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(bound + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file", remedy=remedy) from None
    except (OSError, ValueError) as fault:
        if isinstance(fault, OSError) and fault.errno in NO_DESCRIPTOR:
            raise host_error(str(path), "it cannot be read", fault) from None
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise error(f"{path}: cannot be read ({why})", remedy="check the path and its permissions") from None
    if data is None or len(data) > bound:
        raise error(f"{path}: not a file of at most {bound} bytes", remedy=remedy)
    return data
