"""The command line of every sandbox: supervm-launch prepares it, bubblewrap closes it, and something is executed inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from supervm_rt.transports.native.child.host import Machine, launch_command, library_binds, namespaces
from supervm_rt.transports.native.child.storage import FILES, INSIDE, Storage, Way

STAGE = "/tmp"
"""Where supervm-launch mounts, in its own namespace, what is to be shown."""


def prepared(user: int | None, groups: Sequence[Path]) -> list[str]:
    """The begin of the command: supervm-launch joins these groups, and drops to this user."""
    command = [*launch_command(), *(option for group in groups for option in ("--cgroup", str(group)))]
    return command if user is None else [*command, "--user", str(user), str(user)]


def sandbox(
    machine: Machine,
    user: int | None,
    *,
    groups: Sequence[Path],
    read_paths: Sequence[Path],
    storage: Storage | None,
    image: Path | None = None,
    contents: Sequence[str] = (),
    options: Sequence[str] = (),
    program: Sequence[str],
) -> list[str]:
    """The whole command, for a machine with namespaces.

    ``read_paths``: what is there of what may be read, shown where it is. ``image``: what is shown as ``/``; None: the system's
    libraries. ``contents``: bubblewrap's options for what else is in it; ``options``: for the process. ``program``: what is
    executed.
    """
    assert machine.bubblewrap is not None
    command = prepared(user, groups)
    sources = [str(path) for path in read_paths]
    written = None if storage is None else str(storage.path)
    root = None if image is None else str(image)
    if user is not None or (storage is not None and storage.confined):
        command += [option for path in sources for option in ("--read", path)]
        sources = [f"{STAGE}/{index}" for index in range(len(sources))]
        if storage is not None:
            command += ["--image" if storage.way is Way.IMAGE else "--write", str(storage.path)]
            written = f"{STAGE}/{len(sources)}" + (f"/{FILES}" if storage.way is Way.IMAGE else "")
        if root is not None:
            command += ["--show", root]
            root = f"{STAGE}/{len(sources) + (storage is not None)}"
    command += ["--", machine.bubblewrap, *namespaces(disables=machine.disables_namespaces)]
    if image is None:
        command += library_binds()
    else:
        for entry in sorted(image.iterdir()):
            link = entry.is_symlink()
            command += ["--symlink" if link else "--ro-bind", str(entry.readlink()) if link else f"{root}/{entry.name}"]
            command.append(f"/{entry.name}")
    command += contents
    for source, path in zip(sources, read_paths, strict=True):
        command += ["--ro-bind", source, str(path)]
    if written is not None:
        command += ["--bind", written, INSIDE]
    return [*command, *options, "--remount-ro", "/", "--", *program]
