"""Remote plugins that the host starts: an executable, or an OCI image, in the sandbox of a native child (clauses T3, S1).

Inside there is the program, the system's libraries (an image brings its own), what ``read_paths`` and ``storage`` grant, and one
socket of the host's, at which whoever comes is this plugin. The environment says where it is: ``SUPERVM_SOCKET``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import ChildEnded, ConfigurationError, HostError, LoadError, PluginError
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.interface import Confinement
from supervm_rt.transports.native.child import launcher
from supervm_rt.transports.native.child.cgroups import Group, Quotas, start_time
from supervm_rt.transports.native.child.ending import describe
from supervm_rt.transports.native.child.host import (
    Machine,
    launch_command,
    library_binds,
    machine,
    namespaces,
    user_for,
)
from supervm_rt.transports.native.child.output import Output
from supervm_rt.transports.native.child.seccomp import compile_program, read_profile
from supervm_rt.transports.native.child.storage import FILES, INSIDE, Storage, Way, excess, prepare
from supervm_rt.transports.remote.images import Image, Layout

if TYPE_CHECKING:
    from supervm_rt.transports.remote.server import RemoteServer
    from supervm_rt.transports.remote.transport import RemoteTransport

PROGRAM_PATH = "/plugin"
SOCKET_PATH = "/supervm.sock"
MOST_TASKS = 64
OWN_TASKS = 8
OVERHEAD_BYTES = 32 << 20
MOST_IMAGE_BYTES = 8 << 30
END_SECONDS = 5.0
_PLACE = re.compile(r"supervm-(\d+)-(\d+)-\w+")
_INFO, _WARNING = 2, 3


class Program:
    """One process of one life. Made with what the policy was asked about: the sealed executable, or the image's manifest."""

    def __init__(
        self,
        server: RemoteServer,
        code: SealedLibrary | Layout,
        manifest: Manifest,
        *,
        plugin: str,
        folder: Path,
        read_paths: dict[str, Path],
        storage: Path,
    ) -> None:
        """``code`` is closed at the end. ``folder``: the plugin's. ``storage``: where it may write, where that is granted."""
        self._server = server
        self._code = code
        self._manifest = manifest
        self._plugin = plugin
        self._folder = folder
        self._read_paths = read_paths
        self._folder_of_storage = storage if manifest.resources.storage else None
        self._storage: Storage | None = None
        self._group: Group | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: tuple[Output, ...] = ()
        self._scope = trio.CancelScope()
        """Of its socket."""
        self._watch_scope = trio.CancelScope()
        self._ended = trio.Event()
        self._watching = False
        self._place: Path | None = None
        self._lock = -1
        """Of the place, while there is one."""
        self._transport: RemoteTransport | None = None
        self._doomed: ChildEnded | None = None
        self.confinement: Confinement | None = None

    async def start(self, transport: RemoteTransport) -> None:
        """Starts it. Raises HostError, ConfigurationError, LoadError."""
        self._transport = transport
        here = await trio.to_thread.run_sync(machine)
        if here.bubblewrap is None:
            raise HostError(
                f"{self._plugin}: a program cannot be sandboxed without namespaces ({here.why_degraded})",
                remedy="allow user namespaces (sysctl user.max_user_namespaces), or start it by hand as an external plugin",
            )
        for key, path in self._read_paths.items():
            launcher.check_read_path(self._plugin, key, path)
        if len(self._read_paths) > launcher.MOST_READ_PATHS:
            raise ConfigurationError(f"{self._plugin}: more than {launcher.MOST_READ_PATHS} paths are to be read")
        user = user_for(self._plugin)
        if self._folder_of_storage is not None:
            folder, size, launch = self._folder_of_storage, self._manifest.resources.storage or 0, tuple(launch_command())
            self._storage = await trio.to_thread.run_sync(lambda: prepare(folder, size, user, launch))
        place, self._lock = await trio.to_thread.run_sync(_make_place)
        self._place = place
        image: Image | None = None
        if isinstance(self._code, Layout):
            most = min(self._manifest.resources.storage or MOST_IMAGE_BYTES, MOST_IMAGE_BYTES)
            unpacked = place / "image"
            unpacked.mkdir(mode=0o755)
            layout = self._code
            image = await trio.to_thread.run_sync(lambda: layout.unpack(unpacked, most_bytes=most))
            unpacked.chmod(0o755)
        await self._server.listen_for(self._plugin, place / "socket", os.geteuid() if user is None else user, self._scope)
        quotas = self._make_group(here)
        self._spawn(here, image, place / "socket", user)
        self.confinement = Confinement(
            degraded=False,
            user=os.geteuid() if user is None else user,
            landlock=0,
            seccomp_profile=self._manifest.security.seccomp_profile,
            quotas=quotas,
        )
        self._server.nursery.start_soon(self._watch)
        self._watching = True

    def _make_group(self, here: Machine) -> dict[str, str]:
        resources = self._manifest.resources
        if here.bases is not None:
            memory = None if resources.memory is None else resources.memory + OVERHEAD_BYTES
            self._group = Group(here.bases, Quotas(memory=memory, cpu=resources.cpu, tasks=MOST_TASKS + OWN_TASKS))
        means = f"cgroup v{self._group.version}" if self._group else "nothing"
        enforced = self._group.enforces if self._group else frozenset()
        found = {
            name: means if name in enforced else "nothing"
            for name, wanted in (("memory", resources.memory), ("cpu", resources.cpu))
            if wanted is not None
        }
        if resources.storage is not None:
            found["storage"] = self._storage.way if self._storage is not None else "no writable folder"
        return found

    def _spawn(self, here: Machine, image: Image | None, socket: Path, user: int | None) -> None:
        assert here.bubblewrap is not None
        granted = (*(("reading",) if self._read_paths else ()), *(("storage",) if self._storage is not None else ()))
        profile = read_profile(self._manifest.security.seccomp_profile, plugin_folder=self._folder)
        opened: list[int] = []
        try:
            filter_ = os.memfd_create("supervm-seccomp", os.MFD_CLOEXEC)
            opened.append(filter_)
            os.write(filter_, compile_program(profile, granted))
            os.lseek(filter_, 0, os.SEEK_SET)
            command = launch_command()
            command += [option for group in (self._group.folders if self._group else ()) for option in ("--cgroup", str(group))]
            shown = [path for path in self._read_paths.values() if path.exists()]
            sources = [str(path) for path in shown]
            storage = self._storage
            written = None if storage is None else str(storage.path)
            if user is not None or (storage is not None and storage.confined):
                if user is not None:
                    command += ["--user", str(user), str(user)]
                command += [option for path in sources for option in ("--read", path)]
                sources = [f"{launcher.STAGE}/{index}" for index in range(len(shown))]
                if storage is not None:
                    command += ["--image" if storage.way is Way.IMAGE else "--write", str(storage.path)]
                    written = f"{launcher.STAGE}/{len(shown)}" + (f"/{FILES}" if storage.way is Way.IMAGE else "")
            command += ["--", here.bubblewrap]
            inside = namespaces(disables=here.disables_namespaces)
            if image is None:
                assert isinstance(self._code, SealedLibrary)
                code = os.open(f"/proc/self/fd/{self._code.fd}", os.O_RDONLY | os.O_CLOEXEC)
                opened.append(code)
                inside += [*library_binds(), "--perms", "0555", "--ro-bind-data", str(code), PROGRAM_PATH]
                started: tuple[str, ...] = (PROGRAM_PATH,)
                environment: tuple[tuple[str, str], ...] = ()
                folder = INSIDE if written is not None else "/"
            else:
                for entry in sorted(image.root.iterdir()):
                    source = str(entry.readlink()) if entry.is_symlink() else str(entry)
                    inside += ["--symlink" if entry.is_symlink() else "--ro-bind", source, f"/{entry.name}"]
                self._check_mounts(image, [SOCKET_PATH, *([] if written is None else [INSIDE]), *map(str, shown)])
                started, environment, folder = image.command, image.environment, image.folder
            inside += ["--ro-bind", str(socket), SOCKET_PATH]
            for source, path in zip(sources, shown, strict=True):
                inside += ["--ro-bind", source, str(path)]
            if written is not None:
                inside += ["--bind", written, INSIDE]
            for name, value in (*environment, ("SUPERVM_SOCKET", SOCKET_PATH), ("SUPERVM_PLUGIN", self._plugin)):
                inside += ["--setenv", name, value]
            # As the first process of its namespace: bubblewrap itself would be confined too, if it stayed there.
            inside += ["--as-pid-1", "--chdir", folder, "--seccomp", str(filter_), "--remount-ro", "/", "--", *started]
            out_read, out_write = os.pipe2(os.O_CLOEXEC)
            opened.append(out_write)
            try:
                error_read, error_write = os.pipe2(os.O_CLOEXEC)
            except OSError:
                os.close(out_read)
                raise
            opened.append(error_write)
            for descriptor in (out_read, error_read):
                os.set_blocking(descriptor, False)
            self._outputs = (Output(out_read, "stdout", _INFO), Output(error_read, "stderr", _WARNING))
            self._process = subprocess.Popen(
                [*command, *inside],
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=error_write,
                pass_fds=[each for each in opened if each not in {out_write, error_write}],
                env={},
                cwd="/",
            )
        except OSError as error:
            raise HostError(
                f"{self._plugin}: no process could be started for it ({error.strerror or error})",
                remedy="raise the limits of this process",
            ) from None
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _check_mounts(self, image: Image, places: Iterable[str]) -> None:
        """bubblewrap follows links where it mounts, while the host's own files are there too. Raises LoadError for such links."""
        for place in places:
            inside = image.root
            for part in Path(place).parts[1:]:
                inside /= part
                if inside.is_symlink():
                    raise LoadError(
                        f"{self._plugin}: /{inside.relative_to(image.root)} is a link in its image, and {place} is shown there",
                        remedy="make it a folder in the image, or leave it out",
                    )

    # ---- while it runs -------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Hands on what it prints, ends it where it writes too much, and says when it has ended."""
        assert self._process is not None
        assert self._transport is not None
        process, transport = self._process, self._transport
        with self._watch_scope:
            try:
                await self._watch_process(process, transport)
            except OSError as error:
                self._doomed = ChildEnded(f"{self._plugin}: its process cannot be watched ({error.strerror})", cause="control")
                self.kill()
                transport.process_ended()
            finally:
                self._ended.set()

    async def _watch_process(self, process: subprocess.Popen[bytes], transport: RemoteTransport) -> None:
        async with trio.open_nursery() as nursery:
            for output in self._outputs:
                nursery.start_soon(self._hand_on, output)
            if self._storage is not None and self._storage.way is Way.FOLDER:
                nursery.start_soon(self._watch_storage, self._storage.path)
            descriptor = os.pidfd_open(process.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
            process.wait()
            self._ended.set()
            for output in self._outputs:
                output.drain()
                self._say(output)
            transport.process_ended()
            nursery.cancel_scope.cancel()

    async def _hand_on(self, output: Output) -> None:
        while not output.ended:
            await trio.lowlevel.wait_readable(output.descriptor)
            output.drain()
            self._say(output)

    def _say(self, output: Output) -> None:
        assert self._transport is not None
        for message in output.take():
            self._transport.say(message, sign=False)

    async def _watch_storage(self, storage: Path) -> None:
        most = self._manifest.resources.storage or 0
        while True:
            await trio.sleep(1.0)
            breach = await trio.to_thread.run_sync(excess, storage, most)
            if breach:
                self._doomed = ChildEnded(
                    f"{self._plugin}: {breach}",
                    cause="quota",
                    remedy="raise resources in its manifest, or ask its author",
                )
                self.kill()
                return

    async def wait_for(self, event: trio.Event) -> None:
        """Waits for an event. Raises PluginError where the process ends before."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ended_cancels, nursery.cancel_scope)
            await event.wait()
            nursery.cancel_scope.cancel()
        if not event.is_set():
            raise self.how_it_ended()

    async def _ended_cancels(self, scope: trio.CancelScope) -> None:
        await self._ended.wait()
        scope.cancel()

    async def explain(self, error: PluginError) -> PluginError:
        """What says more than that the connection was lost: how the process ended, if it does so now."""
        with trio.move_on_after(1.0):
            await self._ended.wait()
        return self.how_it_ended() if self._ended.is_set() else error

    def how_it_ended(self) -> PluginError:
        """Why there is no process any more."""
        if self._doomed is not None:
            return self._doomed
        if self._group is not None and self._group.killed_for_memory():
            return ChildEnded(
                f"{self._plugin}: it used more memory than its manifest grants, and was killed",
                cause="quota",
                remedy="raise resources.memory in its manifest, or ask its author",
            )
        status = self._process.poll() if self._process is not None else None
        last = next((line for output in reversed(self._outputs) if (line := output.last_line())), "")
        return describe(self._plugin, -9 if status is None else status, last)

    @property
    def status(self) -> int | None:
        """Its exit status; None: it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    # ---- the end -------------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Ends it at once; bubblewrap's whole tree goes with it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def end(self, seconds: float) -> None:
        """Waits so long for its end, kills it, and leaves nothing of it. To be shielded."""
        if self._process is not None:
            with trio.move_on_after(seconds):
                await self._ended.wait()
            self.kill()
            with trio.move_on_after(END_SECONDS):
                while self._process.poll() is None:  # noqa: ASYNC110 - a process that is reaped is an event of the kernel's
                    await trio.sleep(0.002)
        self._scope.cancel()
        self._watch_scope.cancel()
        if self._watching:
            await self._ended.wait()
        for output in self._outputs:
            with contextlib.suppress(OSError):
                os.close(output.descriptor)
        self._outputs = ()
        with trio.move_on_after(END_SECONDS):
            while self._group is not None and not self._group.remove():  # noqa: ASYNC110 - the kernel counts for a moment longer
                await trio.sleep(0.002)
        if self._place is not None:
            place, self._place = self._place, None
            await trio.to_thread.run_sync(lambda: shutil.rmtree(place, ignore_errors=True))
            os.close(self._lock)
        if isinstance(self._code, SealedLibrary):
            self._code.close()


def _make_place() -> tuple[Path, int]:
    """A folder, and the descriptor by which it is locked: it says also in another process namespace that somebody has it."""
    folder = _runtime_folder()
    clear_places(Path(folder))
    place = Path(tempfile.mkdtemp(prefix=f"supervm-{os.getpid()}-{start_time(os.getpid())}-", dir=folder))
    place.chmod(0o711)
    return place, _lock(place)


def _lock(place: Path) -> int:
    """Raises OSError, a BlockingIOError where somebody else has it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def clear_places(folder: Path) -> None:
    """Removes what hosts that were killed left: the sockets and images of their plugins."""
    for place in folder.glob("supervm-*"):
        match = _PLACE.fullmatch(place.name)
        if match is not None and start_time(int(match[1])) != int(match[2]):
            with contextlib.suppress(OSError):
                lock = _lock(place)
                shutil.rmtree(place, ignore_errors=True)
                os.close(lock)


def _runtime_folder() -> str:
    """Not below /tmp, which supervm-launch covers."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    folders: list[str] = ["/run", *([own] if own else []), "/var/tmp"]
    for folder in folders:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise HostError("there is no folder for the sockets of plugins", remedy="set XDG_RUNTIME_DIR to one")
