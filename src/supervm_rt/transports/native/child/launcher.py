"""Starts the process of a plugin: what the host prepares, and bubblewrap or the degraded mode around the runner."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import ConfigurationError, HostError
from supervm_rt.transports.native.child.host import (
    LINKER_CACHE,
    Machine,
    launch_command,
    library_binds,
    library_folders,
    namespaces,
    program,
    user_for,
)
from supervm_rt.transports.native.child.storage import FILES, INSIDE, Storage, Way
from supervm_rt.transports.native.child.verifying import ask_for_sender

RUNNER_PATH = "/runner"
PLUGIN_PATH = "/plugin.so"
MOST_READ_PATHS = 16
STAGE = "/tmp"
"""Where supervm-launch mounts, in its own namespace, what is to be read."""
_killed: list[subprocess.Popen[bytes]] = []
"""Processes that were given up before the kernel had ended them: somebody has to take their status."""
_RESERVED = (RUNNER_PATH, PLUGIN_PATH, LINKER_CACHE, INSIDE)


@dataclass(slots=True)
class Child:
    """A started process. Every descriptor is the host's; ``close`` closes them."""

    process: subprocess.Popen[bytes]
    pidfd: int
    control: socket.socket
    outputs: tuple[int, int]
    """Read ends of its standard output and standard error; non-blocking, as nothing but the host has them."""
    degraded: bool

    def kill(self) -> None:
        """Ends it at once; bubblewrap's whole tree goes with it."""
        if self.process.poll() is None:
            self.process.kill()

    def close(self) -> None:
        """Closes the descriptors."""
        _killed[:] = [process for process in (*_killed, self.process) if process.poll() is None]
        self.control.close()
        for descriptor in (self.pidfd, *self.outputs):
            os.close(descriptor)


def _reopen(descriptor: int) -> int:
    """A descriptor of the same sealed memory with a position of its own, at the start."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def check_read_path(plugin: str, key: str, path: Path) -> None:
    """Whether a path can be shown inside. Raises ConfigurationError.

    One that does not exist is not shown: the plugin says so itself.
    """
    text = str(path)
    visible = [*library_folders(), *_RESERVED, "/proc", "/dev", "/sys"]
    if (
        not path.is_absolute()
        or text == "/"
        or any(path.is_relative_to(each) or Path(each).is_relative_to(path) for each in visible)
    ):
        raise ConfigurationError(
            f"{plugin}: {key} is {text!a}, which cannot be shown to a sandboxed plugin", remedy="name the folder itself"
        )
    if os.geteuid() == 0 or not path.exists():
        return
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise ConfigurationError(
            f"{plugin}: {text} ({key}) cannot be read by the user that runs this node",
            remedy="run the node as the folder's owner or as root, or give this user the right to read it",
        )


def start(
    machine: Machine,
    library: SealedLibrary,
    *,
    plugin: str,
    read_paths: list[Path],
    groups: list[Path],
    storage: Storage | None,
) -> Child:
    """Starts the runner. To be called on the thread that lives as long as the child: its end would end the child.

    Raises HostError.
    """
    opened: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        ours.setblocking(False)
        ask_for_sender(ours)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        opened += [out_read, out_write]
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
        opened += [error_read, error_write]
        runner, code = _reopen(program("supervm-runner").fd), _reopen(library.fd)
        opened += [runner, code]
        for descriptor in (out_read, error_read):
            os.set_blocking(descriptor, False)
        shown = [path for path in read_paths if path.exists()]
        process = subprocess.Popen(
            _command(machine, user_for(plugin), shown, groups, storage, runner=runner, code=code, control=theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=out_write,
            stderr=error_write,
            pass_fds=(theirs.fileno(), *((runner, code) if machine.bubblewrap else (runner,))),
            env={},
            cwd="/",
        )
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        child = Child(process, pidfd, ours, (out_read, error_read), degraded=machine.bubblewrap is None)
        opened = [out_write, error_write, runner, code]
        return child
    except OSError as error:
        ours.close()
        raise HostError(
            f"{plugin}: no process could be started for it ({error.strerror or error})", remedy="raise the limits of this process"
        ) from None
    finally:
        theirs.close()
        for descriptor in opened:
            os.close(descriptor)


def _command(
    machine: Machine,
    user: int | None,
    shown: list[Path],
    groups: list[Path],
    storage: Storage | None,
    *,
    runner: int,
    code: int,
    control: int,
) -> list[str]:
    command = launch_command()
    command += [option for group in groups for option in ("--cgroup", str(group))]
    if user is not None:
        command += ["--user", str(user), str(user)]
    if machine.bubblewrap is None:
        # Landlock alone says what may be read: by path, so only what this user may read anyway.
        return [*command, "--descriptor", str(runner), "--", "supervm-runner", str(control)]
    sources = [str(path) for path in shown]
    written = None if storage is None else str(storage.path)
    if user is not None or (storage is not None and storage.confined):
        command += [option for path in sources for option in ("--read", path)]
        sources = [f"{STAGE}/{index}" for index in range(len(shown))]
        if storage is not None:
            command += ["--image" if storage.way is Way.IMAGE else "--write", str(storage.path)]
            written = f"{STAGE}/{len(shown)}" + (f"/{FILES}" if storage.way is Way.IMAGE else "")
    command += ["--", machine.bubblewrap, *namespaces(disables=machine.disables_namespaces), *library_binds()]
    command += ["--perms", "0555", "--ro-bind-data", str(runner), RUNNER_PATH]
    command += ["--perms", "0444", "--ro-bind-data", str(code), PLUGIN_PATH]
    for source, path in zip(sources, shown, strict=True):
        command += ["--ro-bind", source, str(path)]
    if written is not None:
        command += ["--bind", written, INSIDE]
    return [*command, "--remount-ro", "/", "--", RUNNER_PATH, str(control)]


def landlock_paths(machine: Machine, read_paths: list[Path], storage: Storage | None) -> list[tuple[str, str]]:
    """What the runner lets itself read, and write."""
    readable = [*library_folders(), LINKER_CACHE, *map(str, read_paths)]
    if machine.bubblewrap is not None:
        readable.append(PLUGIN_PATH)
    written = [] if storage is None else [("w", INSIDE if machine.bubblewrap is not None else str(storage.path))]
    return [("r", path) for path in readable] + written


def hand_over(child: Child, message: bytes, descriptors: list[int]) -> None:
    """Sends the first message with the descriptors that belong to it. Raises OSError where the child is gone already."""
    sent = socket.send_fds(child.control, [message], descriptors)
    if sent != len(message):  # a fresh socket holds far more than this
        raise OSError(f"{sent} of {len(message)} bytes were taken")
