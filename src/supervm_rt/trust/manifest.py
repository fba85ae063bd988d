"""plugin.yaml to a Manifest, and the comparison with what a binary says of itself (clauses M1, A1)."""

from __future__ import annotations

import json
from typing import Any

from supervm_rt.errors import ManifestError, ManifestMismatch
from supervm_rt.model.manifest import Capability, Manifest, Resources, RestartPolicy, RunMode, Security
from supervm_rt.trust.documents import DocumentFault, check_shape, read_yaml
from supervm_rt.trust.network import parse_network
from supervm_rt.trust.units import parse_bytes, parse_cores, parse_seconds

FILE_NAME = "plugin.yaml"
_LONGEST_HEARTBEAT = 30 * 86_400.0
"""Seconds: the runner is told milliseconds in 32 bits."""


def parse_manifest(data: bytes, *, source: str = FILE_NAME) -> Manifest:
    """Parses and validates a manifest. ``source`` names it in errors. Raises ManifestError."""
    try:
        document = check_shape(read_yaml(data), package="supervm_rt.trust", schema="manifest.schema.json")
        return _manifest(document)
    except DocumentFault as fault:
        raise ManifestError(f"{source}: {fault}", remedy="see docs/plugins/example-plugin.yaml for every field") from None


def _manifest(document: dict[str, Any]) -> Manifest:
    resources = document.get("resources", {})
    security = document.get("security", {})
    binary = document.get("binary")
    if binary is not None and binary.startswith("/"):
        raise DocumentFault("binary: an absolute path; name a file beside the manifest")
    if binary is not None and ".." in binary.split("/"):
        raise DocumentFault("binary: a path out of the manifest's folder")
    if binary is not None and "\0" in binary:
        raise DocumentFault("binary: a path with a NUL character")
    try:
        network = parse_network(document.get("network", {}))
    except ValueError as error:
        raise DocumentFault(str(error)) from None
    return Manifest(
        id=document["id"],
        name=document["name"],
        version=document["version"],
        chain=document["chain"],
        capabilities=frozenset(map(Capability, document["capabilities"])),
        binary=binary,
        run_mode=RunMode(document.get("runMode", "native")),
        resources=Resources(
            cpu=_amount("resources.cpu", parse_cores, resources.get("cpu")),
            memory=_amount("resources.memory", parse_bytes, resources.get("memory")),
            storage=_amount("resources.storage", parse_bytes, resources.get("storage")),
        ),
        security=Security(
            sandbox=security.get("sandbox", True),
            seccomp_profile=security.get("seccomp_profile", "baseline"),
            read_paths=tuple(security.get("read_paths", ())),
        ),
        network=network,
        signature=document.get("signature"),
        heartbeat=_amount("heartbeat", _heartbeat, document.get("heartbeat")),
        restart=RestartPolicy(document.get("restart", "on-failure")),
        notes=document.get("notes", ""),
    )


def _heartbeat(value: object) -> float:
    seconds = parse_seconds(value)
    if seconds > _LONGEST_HEARTBEAT:
        raise ValueError(f"{value!r} is longer than a heartbeat can be; write at most 30d")
    return seconds


def _amount(place: str, parse: Any, value: object) -> Any:
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise DocumentFault(f"{place}: {error}") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number without end, a list in a list in a list
        return "something else"
    return text if len(text) <= 200 else f"{text[:197]}..."


def compare_with_binary(manifest: Manifest, said: bytes) -> None:
    """Raises ManifestMismatch unless the JSON that the binary returned agrees on id, name, version, chain and capabilities.

    Only these: a binary cannot contain its own digest, and limits are the manifest's alone (clause A1).
    """
    try:
        document = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise ManifestMismatch(
            f"{manifest.id}: what plugin_get_manifest_json returned is not JSON ({error})",
            remedy="return one JSON object with id, name, version, chain and capabilities",
        ) from None
    if not isinstance(document, dict):
        raise ManifestMismatch(
            f"{manifest.id}: what plugin_get_manifest_json returned is not a JSON object",
            remedy="return one JSON object with id, name, version, chain and capabilities",
        )
    differences = [
        f"{key} is {_short(document.get(key))} in the binary and {expected!r} in the manifest"
        for key, expected in (
            ("id", manifest.id),
            ("name", manifest.name),
            ("version", manifest.version),
            ("chain", manifest.chain),
        )
        if document.get(key) != expected
    ]
    said_capabilities = document.get("capabilities")
    expected_capabilities = sorted(map(str, manifest.capabilities))
    if (
        not isinstance(said_capabilities, list)
        or not all(isinstance(item, str) for item in said_capabilities)
        or sorted(said_capabilities) != expected_capabilities
    ):
        differences.append(
            f"capabilities is {_short(said_capabilities)} in the binary and {expected_capabilities!r} in the manifest"
        )
    if differences:
        raise ManifestMismatch(
            f"{manifest.id}: the binary and its manifest disagree: {'; '.join(differences)}",
            remedy="install the binary and the manifest of the same release together",
        )
