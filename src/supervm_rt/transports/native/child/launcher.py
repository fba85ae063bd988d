"""Starts the process of a plugin: what the host prepares, and bubblewrap or the degraded mode around the runner."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import ConfigurationError
from supervm_rt.transports.native.child.bubblewrap import prepared, sandbox
from supervm_rt.transports.native.child.ending import kill
from supervm_rt.transports.native.child.host import (
    LINKER_CACHE,
    Machine,
    library_folders,
    program,
    user_for,
)
from supervm_rt.transports.native.child.storage import INSIDE, Storage
from supervm_rt.transports.native.child.verifying import ask_for_sender
from supervm_rt.transports.shortage import host_error

RUNNER_PATH = "/runner"
PLUGIN_PATH = "/plugin.so"
MOST_READ_PATHS = 16
PROGRAM_PATH = "/plugin"
ENTER_PATH = "/supervm-enter"
SOCKET_PATH = "/supervm.sock"
"""What a program with runMode grpc finds in its sandbox: itself, what confines it, and the host."""
STAGE = "/tmp"
"""Where supervm-launch mounts, in its own namespace, what is to be read."""
_killed: list[subprocess.Popen[bytes]] = []
"""Processes that were given up before the kernel had ended them: somebody has to take their status."""
_RESERVED = (RUNNER_PATH, PLUGIN_PATH, LINKER_CACHE, INSIDE, PROGRAM_PATH, ENTER_PATH, SOCKET_PATH)


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
        """Ends it at once, and all that it started."""
        kill(self.process)

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
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise host_error(plugin, "no process could be started for it", error) from None
    try:
        ours.setblocking(False)
        ask_for_sender(ours)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        opened += [out_read, out_write]
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
        opened += [error_read, error_write]
        runner = _reopen(program("supervm-runner").fd)
        opened.append(runner)
        code = _reopen(library.fd)
        opened.append(code)
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
            start_new_session=True,
        )
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            kill(process)
            process.wait()
            raise
        child = Child(process, pidfd, ours, (out_read, error_read), degraded=machine.bubblewrap is None)
        opened = [out_write, error_write, runner, code]
        return child
    except BaseException as error:
        ours.close()
        if isinstance(error, OSError):
            raise host_error(plugin, "no process could be started for it", error) from None
        raise
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
    if machine.bubblewrap is None:
        # Landlock alone says what may be read: by path, so only what this user may read anyway.
        return [*prepared(user, groups), "--descriptor", str(runner), "--", "supervm-runner", str(control)]
    contents = ["--perms", "0555", "--ro-bind-data", str(runner), RUNNER_PATH]
    contents += ["--perms", "0444", "--ro-bind-data", str(code), PLUGIN_PATH]
    return sandbox(
        machine,
        user,
        groups=groups,
        read_paths=shown,
        storage=storage,
        contents=contents,
        program=(RUNNER_PATH, str(control)),
    )


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
