"""OCI images out of a local layout, unpacked without an engine: verified, bounded, and never outside of their folder.

The layers are applied to a tree in memory; file contents go to numbered files. Only the finished tree is made in the file system,
symbolic links last: while anything is written there is no link that could lead elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import posixpath
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from supervm_rt.errors import LoadError
from supervm_rt.transports.remote.layers import CHUNK, MOST_ENTRIES, Above, Budget, Hashed, members
from supervm_rt.transports.shortage import NO_DESCRIPTOR, host_error

MOST_DOCUMENT_BYTES = 4 << 20
MOST_LAYERS = 128
MOST_LINKS = 40
"""Links that are followed for one path."""
LONGEST_PATH = 4_096
DEEPEST = 128
"""Folders in one another."""
MOST_COMMAND_BYTES = 128 << 10
"""Of command and environment, as much as the kernel takes for one word; each word costs 32 more."""
MOST_ROOT_BYTES = 64 << 10
"""Of the names in its root folder, each of which is granted by itself."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INDEXES = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
_PLAIN = {"application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"}
_GZIP = {f"{kind}{suffix}" for kind in _PLAIN for suffix in ("+gzip", ".gzip")}
_TAG = "org.opencontainers.image.ref.name"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked image."""

    root: Path
    """What it shows as ``/``."""
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    folder: str
    """Its working folder."""
    folder_is_there: bool
    """In the image itself: it may lie in what is shown inside besides."""
    files: int
    """Files, folders and links that its layers hold."""
    size: int
    """Bytes that its layers have unpacked."""
    digest: bytes
    """SHA-256 of its manifest, which holds the digests of all else: the policy decides about it."""


@dataclass(slots=True)
class _Node:
    """A file, folder or link of the tree."""

    mode: int
    content: Path | None = None
    link: str | None = None
    children: dict[str, _Node] | None = None


class _Changes:
    """What one layer puts where: its whiteouts are about the layers below, wherever they stand in it."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[_Node, set[str]]] = {}
        self._bare: dict[int, _Node] = {}

    def put(self, folder: _Node, name: str) -> None:
        """Notes a name that it puts into a folder, or a folder in it that it puts something into."""
        self._names.setdefault(id(folder), (folder, set()))[1].add(name)

    def _of(self, folder: _Node) -> set[str]:
        return self._names[id(folder)][1] if id(folder) in self._names else set()

    def hide(self, folder: _Node, name: str) -> None:
        """Takes away what lay under this name below."""
        children = cast("dict[str, _Node]", folder.children)
        if name not in self._of(folder):
            children.pop(name, None)
        elif children[name].children is not None:
            self.bare(children[name])

    def bare(self, folder: _Node) -> None:
        """Takes away all of a folder that lay below."""
        waiting = [folder]
        while waiting:
            node = waiting.pop()
            children = cast("dict[str, _Node]", node.children)
            if id(node) in self._bare:  # what came since is this layer's own
                continue
            self._bare[id(node)] = node
            own = self._of(node)
            for name in [name for name in children if name not in own]:
                del children[name]
            waiting += [each for each in children.values() if each.children is not None]


def split_reference(reference: str) -> tuple[str, str | None]:
    """``PATH[:TAG]`` behind ``oci:``."""
    path, colon, tag = reference.rpartition(":")
    return (path, tag) if colon and "/" not in tag else (reference, None)


class Layout:
    """One image in a local OCI layout. Blobs are read once for each use, and what was hashed is what is used."""

    def __init__(self, folder: Path, tag: str | None) -> None:
        """Reads the manifest. Raises LoadError."""
        self._folder = folder
        self._where = f"oci:{folder}{f':{tag}' if tag else ''}"
        layout = self._document((folder / "oci-layout"), None)
        if layout.get("imageLayoutVersion") != "1.0.0":
            raise self._error("it is no OCI layout of version 1.0.0")
        found = self._list(self._document(folder / "index.json", None), "manifests")
        if tag is not None:
            found = [each for each in found if _annotations(each).get(_TAG) == tag]
        if len(found) != 1:
            raise self._error(f"it holds {len(found)} such images", "name one of them by its tag: oci:PATH:TAG")
        descriptor = found[0]
        for _ in range(4):
            self.sha256, document = self._blob(descriptor)
            if "manifests" not in document and descriptor.get("mediaType") not in _INDEXES:
                break
            descriptor = self._for_this_machine(self._list(document, "manifests"))
        else:
            raise self._error("its indexes name one another")
        self._layers = self._list(document, "layers")
        if len(self._layers) > MOST_LAYERS:
            raise self._error(f"it has more than {MOST_LAYERS} layers")
        config = document.get("config")
        _, whole = self._blob(config if isinstance(config, dict) else {})
        self._config = cast("dict[str, Any]", whole.get("config") if isinstance(whole.get("config"), dict) else {})

    def _error(self, what: str, remedy: str = "make the image anew, and copy all of its layout") -> LoadError:
        return LoadError(f"{self._where}: {what}", remedy=remedy)

    def _for_this_machine(self, manifests: list[dict[str, Any]]) -> dict[str, Any]:
        machine = _MACHINES.get(platform.machine(), platform.machine())
        for each in manifests:
            wanted = each.get("platform")
            if isinstance(wanted, dict) and wanted.get("os") == "linux" and wanted.get("architecture") == machine:
                return each
        raise self._error(f"it has no image for linux on {machine}")

    def _list(self, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
        found = document.get(key)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self._error(f"{key} is not a list of descriptors")
        return found

    def close(self) -> None:
        """Nothing is open between two uses."""

    # ---- blobs ---------------------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> IO[bytes]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise self._error(f"{path.name} is not a file")
            return os.fdopen(descriptor, "rb")
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                raise host_error(self._where, f"{path.name} cannot be read", error) from None
            raise self._error(f"{path.name} cannot be read ({error.strerror})") from None

    def _document(self, path: Path, digest: str | None) -> dict[str, Any]:
        with self._open(path) as file:
            data = file.read(MOST_DOCUMENT_BYTES + 1)
        if len(data) > MOST_DOCUMENT_BYTES:
            raise self._error(f"{path.name} is larger than {MOST_DOCUMENT_BYTES} bytes")
        if digest is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise self._error(f"what lies under {digest} has another digest")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._error(f"{path.name} is not JSON ({error})") from None
        if not isinstance(document, dict):
            raise self._error(f"{path.name} is not a JSON object")
        return document

    def _path(self, descriptor: dict[str, Any]) -> tuple[Path, str]:
        digest = descriptor.get("digest")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise self._error(f"{digest!a} is no SHA-256 digest")
        return self._folder / "blobs" / "sha256" / digest.removeprefix("sha256:"), digest

    def _blob(self, descriptor: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        path, digest = self._path(descriptor)
        return bytes.fromhex(digest.removeprefix("sha256:")), self._document(path, digest)

    # ---- unpacking -----------------------------------------------------------------------------------------------------------

    def unpack(self, folder: Path, *, most_bytes: int, check: Callable[[], None] = lambda: None) -> Image:
        """Unpacks into a folder of its own, which must be empty. Raises LoadError; the folder is to be thrown away then.

        ``check`` is called between files and within large ones: what it raises ends the unpacking.
        """
        command, environment, working_folder = self._command(), self._environment(), self._working_folder()
        words = (*command, *(word for pair in environment for word in pair))
        if sum(len(os.fsencode(word)) + 32 for word in words) > MOST_COMMAND_BYTES:
            raise self._error(f"its command and environment are longer than {MOST_COMMAND_BYTES} bytes", "shorten them")
        contents, root = folder / "contents", folder / "root"
        contents.mkdir(parents=True)
        budget = Budget(most_bytes, check)
        tree = _Node(0o755, children={})
        try:
            for descriptor in self._layers:
                self._apply(descriptor, tree, contents, budget)
            if sum(len(os.fsencode(name)) + 4 for name in tree.children or {}) > MOST_ROOT_BYTES:
                raise self._error(
                    f"the names in its root folder are longer than {MOST_ROOT_BYTES} bytes", "make a folder for them"
                )
            found = self._walk(tree, self._parts(working_folder))
            root.mkdir()
            root.chmod(0o755)
            _make(tree, root, check)
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                raise host_error(self._where, "it cannot be unpacked", error) from None
            raise self._error(f"it cannot be unpacked ({error.strerror or error})", "make room where storage lies") from None
        finally:
            shutil.rmtree(contents, ignore_errors=True)
        used = {"files": MOST_ENTRIES - budget.entries, "size": most_bytes - budget.bytes}
        there = found is not None and found.children is not None
        return Image(root, command, environment, working_folder, there, digest=self.sha256, **used)

    def _apply(self, descriptor: dict[str, Any], tree: _Node, contents: Path, budget: Budget) -> None:
        kind = descriptor.get("mediaType")
        if kind not in _PLAIN | _GZIP:
            raise self._error(f"a layer is {kind!a}", "make its layers tar or tar+gzip")
        path, digest = self._path(descriptor)
        with self._open(path) as file:
            hashed = Hashed(file, budget.check)
            source = cast("IO[bytes]", gzip.GzipFile(fileobj=cast("IO[bytes]", hashed)) if kind in _GZIP else hashed)
            changes = _Changes()
            try:
                for member, data in members(source, budget):
                    self._count(budget)
                    self._member(member, data, tree, contents, budget=budget, changes=changes)
                while hashed.read(CHUNK):
                    pass
            except Above:
                raise self._error("unpacked it is larger than it may be", "raise resources.storage in its manifest") from None
            except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
                raise self._error(f"a layer is broken ({error})") from None
        if f"sha256:{hashed.digest.hexdigest()}" != digest:
            raise self._error(f"what lies under {digest} has another digest")

    def _count(self, budget: Budget) -> None:
        budget.entries -= 1
        if budget.entries < 0:
            raise self._error(f"it has more than {MOST_ENTRIES} files")

    def _member(
        self, member: tarfile.TarInfo, data: IO[bytes] | None, tree: _Node, contents: Path, *, budget: Budget, changes: _Changes
    ) -> None:
        parts = self._parts(member.name)
        if not parts:
            return
        parent = self._folder_of(tree, parts[:-1], budget, changes)
        children, name = cast("dict[str, _Node]", parent.children), parts[-1]
        if name == _OPAQUE:
            changes.bare(parent)
            return
        if name.startswith(_WHITEOUT):
            changes.hide(parent, name.removeprefix(_WHITEOUT))
            return
        changes.put(parent, name)
        old = children.get(name)
        if member.isdir():
            if old is not None and old.children is not None:
                old.mode = member.mode & 0o777
                return
            node = _Node(member.mode & 0o777, children={})
        elif member.issym():
            node = _Node(0o777, link=self._text(member.linkname))
        elif member.islnk():
            target = self._find(tree, self._parts(member.linkname))
            if target is None or target.content is None:
                raise self._error(f"{member.name!a} is a link to what is no file")
            node = target
        elif member.isreg() and data is not None:
            budget.number += 1
            path = contents / str(budget.number)
            with path.open("xb") as file:
                shutil.copyfileobj(data, file, CHUNK)
            node = _Node(member.mode & 0o777, content=path)
        else:
            raise self._error(f"{member.name!a} is neither file, folder nor link")
        children[name] = node

    def _text(self, text: str) -> str:
        if "\0" in text or len(text) > LONGEST_PATH or not text:
            raise self._error(f"{text[:100]!a} is no path")
        return text

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in self._text(name).split("/") if part not in {"", "."}]
        if ".." in parts or any(len(os.fsencode(part)) > 255 for part in parts):
            raise self._error(f"{name[:100]!a} leads out of the image")
        return parts

    def _folder_of(self, tree: _Node, parts: list[str], budget: Budget, changes: _Changes) -> _Node:
        """The folder that a path names, with links followed inside the image; made where there is none."""
        found = self._walk(tree, parts, budget, changes)
        if found is None or found.children is None:
            raise self._error(f"{'/'.join(parts)[:100]!a} is not a folder")
        return found

    def _find(self, tree: _Node, parts: list[str]) -> _Node | None:
        if not parts:
            return tree
        parent = self._walk(tree, parts[:-1])
        return None if parent is None or parent.children is None else parent.children.get(parts[-1])

    def _walk(self, tree: _Node, parts: list[str], budget: Budget | None = None, changes: _Changes | None = None) -> _Node | None:
        """``budget``: of which what is not there is made; None: it is not made. ``changes``: where the way is noted."""
        way = [tree]
        left = list(reversed(parts))
        links = 0
        while left:
            part = left.pop()
            if part == "..":
                del way[max(1, len(way) - 1) :]
                continue
            here = way[-1]
            if here.children is None:
                return None
            node = here.children.get(part)
            if node is None:
                if budget is None:
                    return None
                self._count(budget)
                node = here.children[part] = _Node(0o755, children={})
            if node.link is not None:
                links += 1
                if links > MOST_LINKS:
                    raise self._error("its links lead in a circle")
                if node.link.startswith("/"):
                    del way[1:]
                left += [each for each in reversed(node.link.split("/")) if each not in {"", "."}]
                continue
            if changes is not None:
                changes.put(here, part)
            way.append(node)
            if len(way) > DEEPEST:
                raise self._error(f"its folders lie too deep in one another, more than {DEEPEST}")
        return way[-1]

    # ---- how it is started ---------------------------------------------------------------------------------------------------

    def _strings(self, key: str) -> list[str]:
        found = self._config.get(key) or []
        if not isinstance(found, list) or not all(_can_be_passed(each) for each in found):
            raise self._error(f"{key} is not a list of texts")
        return found

    def _command(self) -> tuple[str, ...]:
        command = (*self._strings("Entrypoint"), *self._strings("Cmd"))
        if not command:
            raise self._error("it says no command", "set its Entrypoint")
        return command

    def _environment(self) -> tuple[tuple[str, str], ...]:
        pairs = (each.partition("=") for each in self._strings("Env"))
        return tuple((name, value) for name, equals, value in pairs if name and equals)

    def _working_folder(self) -> str:
        folder = self._config.get("WorkingDir") or "/"
        if not _can_be_passed(folder) or len(folder) > LONGEST_PATH:
            raise self._error("WorkingDir is no path")
        return posixpath.normpath(posixpath.join("/", folder))


def _can_be_passed(word: object) -> bool:
    """Whether it is a text that a program can be given."""
    if not isinstance(word, str) or "\0" in word:
        return False
    try:
        os.fsencode(word)
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def _annotations(descriptor: dict[str, Any]) -> dict[str, Any]:
    found = descriptor.get("annotations")
    return found if isinstance(found, dict) else {}


def _make(tree: _Node, root: Path, check: Callable[[], None]) -> None:
    """Makes the tree: folders and files, then links."""
    links: list[tuple[Path, str]] = []
    placed: dict[Path, Path] = {}
    waiting = [(tree, root)]
    while waiting:
        node, path = waiting.pop()
        for name, child in (node.children or {}).items():
            check()
            target = path / name
            if child.children is not None:
                target.mkdir()
                target.chmod(0o755)
                waiting.append((child, target))
            elif child.link is not None:
                links.append((target, child.link))
            elif child.content is not None:
                first = placed.get(child.content)
                if first is None:
                    child.content.rename(target)
                    # Readable by the user that it runs as, whoever owned it in the image; never with another's rights.
                    target.chmod(0o444 | (0o111 if child.mode & 0o111 else 0))
                    placed[child.content] = target
                else:
                    os.link(first, target)
    for target, link in links:
        target.symlink_to(link)
