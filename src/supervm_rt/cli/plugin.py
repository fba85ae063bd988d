"""``plugin inspect DIR``: what a plugin is, before anybody runs it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from supervm_rt._abi import SealedLibrary
from supervm_rt.cli.markers import ANSWER, FAULT
from supervm_rt.cli.output import add_json_option, print_fields, print_json
from supervm_rt.errors import ManifestMismatch, PluginError
from supervm_rt.model.manifest import Manifest
from supervm_rt.model.plugin import Deadlines
from supervm_rt.runtime.binary import inspect_binary, read_manifest
from supervm_rt.runtime.config import MIN_RING_BYTES
from supervm_rt.transports.native.child.transport import ChildTransport
from supervm_rt.trust.manifest import compare_with_binary
from supervm_rt.trust.policy import Policy, PolicyLevel

_HOST_EXTENSIONS = {
    "supervm.block_sink/1": "block_stream",
    "supervm.resume/1": "block_stream",
    "supervm.config/1": None,
    "supervm.heartbeat/1": None,
    "supervm.net/1": "network",
}
"""Each extension that this host has, and what it needs: a capability, or the manifest's list of what it may reach."""
_SECONDS_TO_ANSWER = 30


def add_commands(commands: Any) -> None:
    """Adds the commands."""
    parser: argparse.ArgumentParser = commands.add_parser("plugin", help="look at a plugin")
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    action: argparse.ArgumentParser = actions.add_parser(
        "inspect",
        help="the manifest, what the library says of itself, and the extensions that it asks for",
        description="Shows a plugin's manifest, what its library says of itself, and the extensions that it asks for. "
        "To be asked, the library is loaded in a sandbox, as its manifest describes it, or as tightly as any.",
    )
    action.add_argument("folder", type=Path, metavar="DIR", help="the folder that holds plugin.yaml")
    way = action.add_mutually_exclusive_group()
    way.add_argument("--no-load", action="store_true", help="do not load the library; only read it")
    way.add_argument(
        "--without-sandbox", action="store_true", help="load it in a plain process: its code runs with all of your rights"
    )
    add_json_option(action)
    action.set_defaults(command=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    manifest = read_manifest(options.folder)
    placement = Policy(PolicyLevel.DEV).placement(manifest)
    data, facts = inspect_binary(options.folder, manifest, placement)
    library = SealedLibrary(data)
    try:
        said: Any = None
        fault: str | None = None
        if facts.missing_exports:
            fault = f"it does not export {', '.join(facts.missing_exports)}"
        elif options.without_sandbox:
            said, fault = _compared(manifest, *_ask_plain(library))
        elif not options.no_load:
            said, fault = _compared(manifest, *trio.run(_ask_sandboxed, manifest, SealedLibrary(data), options.folder))
    finally:
        library.close()
    answer: dict[str, Any] = {
        "manifest": _manifest_json(manifest),
        "library": {
            "sha256": library.sha256.hex(),
            "size": library.size,
            "exports": sorted(facts.exports),
            "needed": list(facts.needed),
        },
        "says": said,
        "fault": fault,
        "extensions": [{"id": name, **_extension(name, manifest)} for name in facts.extensions],
    }
    if options.json:
        print_json(answer)
    else:
        _show(answer)
    return 1 if fault else 0


def _extension(name: str, manifest: Manifest) -> dict[str, Any]:
    needs = _HOST_EXTENSIONS.get(name)
    known = name in _HOST_EXTENSIONS
    has = {*map(str, manifest.capabilities), *(["network"] if manifest.network else [])}
    granted = known and (needs is None or needs in has)
    return {"known": known, "capability": needs, "granted": granted}


async def _ask_sandboxed(manifest: Manifest, library: SealedLibrary, folder: Path) -> tuple[bytes | None, str | None]:
    """(what the library says, what is wrong with it). Nothing of it has run in this process, and nothing of it is left."""
    transport = ChildTransport(
        library,
        name=manifest.id,
        generation=1,
        ring_bytes=MIN_RING_BYTES,
        heartbeat=None,
        deadlines=Deadlines(load=_SECONDS_TO_ANSWER),
        security=dataclasses.replace(manifest.security, read_paths=()),
        folder=folder,
        read_paths={},
        resources=dataclasses.replace(manifest.resources, storage=None),
    )
    try:
        return await transport.load(), None
    except PluginError as error:
        return None, str(error)
    finally:
        await transport.unload()


def _ask_plain(library: SealedLibrary) -> tuple[bytes | None, str | None]:
    """The same in a process of its own that may crash or hang, and has all of the user's rights."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "supervm_rt.cli.ask_library", str(library.fd)],
            pass_fds=[library.fd],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"loading it did not end within {_SECONDS_TO_ANSWER} s"
    if done.returncode < 0:
        return None, f"loading it ended the process by signal {-done.returncode}"
    if FAULT in done.stderr:
        return None, done.stderr.rpartition(FAULT)[2].decode(errors="replace").strip()
    if ANSWER not in done.stdout:
        return None, f"loading it ended the process with status {done.returncode}"
    # The answer comes after all that the library itself may have printed.
    return done.stdout.rpartition(ANSWER)[2], None


def _compared(manifest: Manifest, said: bytes | None, fault: str | None) -> tuple[Any, str | None]:
    """(what the library says, as JSON where it is; what is wrong with it)."""
    if said is None:
        return None, fault
    try:
        compare_with_binary(manifest, said)
    except ManifestMismatch as error:
        fault = str(error)
    try:
        return json.loads(said), fault
    except (ValueError, RecursionError):
        return said.decode(errors="replace"), fault


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as it was understood: defaults filled in, amounts in bytes, cores and seconds."""
    return {
        "id": manifest.id,
        "name": manifest.name,
        "version": manifest.version,
        "chain": manifest.chain,
        "capabilities": sorted(map(str, manifest.capabilities)),
        "binary": manifest.binary,
        "runMode": str(manifest.run_mode),
        "resources": {
            "cpu": manifest.resources.cpu,
            "memory": manifest.resources.memory,
            "storage": manifest.resources.storage,
        },
        "security": {
            "sandbox": manifest.security.sandbox,
            "seccomp_profile": manifest.security.seccomp_profile,
            "read_paths": list(manifest.security.read_paths),
        },
        "network": {
            "allow": [str(entry) for entry in manifest.network.allow],
            "listen": [str(entry) for entry in manifest.network.listen],
        },
        "signature": manifest.signature,
        "heartbeat": manifest.heartbeat,
        "restart": str(manifest.restart),
        "notes": manifest.notes,
    }


def _show(answer: dict[str, Any]) -> None:
    print("manifest")
    written = {name: value for name, value in answer["manifest"].items() if value not in (None, "")}
    print_fields({f"  {name}": plain for name, value in written.items() if (plain := _plain(value))})
    print("library")
    print_fields({f"  {name}": _plain(value) for name, value in answer["library"].items()})
    print("says of itself")
    if answer["says"] is not None:
        print(f"  {json.dumps(answer['says'])}")
    print(f"  {answer['fault'] or ('agrees with the manifest' if answer['says'] is not None else 'was not asked')}")
    print("asks for")
    for extension in answer["extensions"]:
        state = "granted" if extension["granted"] else "not granted" if extension["known"] else "unknown to this host"
        needs = f" (needs {extension['capability']})" if extension["capability"] else ""
        print(f"  {extension['id']}{needs}: {state}")
    if not answer["extensions"]:
        print("  nothing")


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items() if item not in (None, []))
    return ", ".join(map(str, value)) if isinstance(value, list) else " ".join(str(value).split())
