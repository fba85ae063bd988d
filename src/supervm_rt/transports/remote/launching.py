"""Remote plugins that the host starts: an executable, or an OCI image, in the sandbox of a native child (clauses T3, S1).

Inside there is the program, the system's libraries (an image brings its own), what ``read_paths`` and ``storage`` grant, and one
socket of the host's, at which whoever comes is this plugin. The environment says where it is: ``SUPERVM_SOCKET``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import ChildEnded, ConfigurationError, HostError, LoadError, PluginError
from supervm_rt.model.events import EventKind
from supervm_rt.model.manifest import Manifest
from supervm_rt.transports.interface import Confinement
from supervm_rt.transports.native.child import launcher
from supervm_rt.transports.native.child.bubblewrap import sandbox
from supervm_rt.transports.native.child.cgroups import Group
from supervm_rt.transports.native.child.ending import END_SECONDS, TOLD_SECONDS, describe, kill
from supervm_rt.transports.native.child.enforcing import MOST_TASKS, enforce, refuse_less
from supervm_rt.transports.native.child.host import (
    LINKER_CACHE,
    Machine,
    launch_command,
    library_folders,
    machine,
    program,
    user_for,
)
from supervm_rt.transports.native.child.launcher import ENTER_PATH, PROGRAM_PATH, SOCKET_PATH
from supervm_rt.transports.native.child.output import FLOOD_PAUSE, Output
from supervm_rt.transports.native.child.quotas import CPU_SECONDS, LOOK_SECONDS, Watch
from supervm_rt.transports.native.child.seccomp import compile_program, read_profile
from supervm_rt.transports.native.child.storage import INSIDE, Storage, prepare
from supervm_rt.transports.native.child.verifying import (
    ask_for_sender,
    receive_with_descriptor,
    user_of,
    what_is_missing,
)
from supervm_rt.transports.remote.connecting import Connections
from supervm_rt.transports.remote.images import Image, Layout
from supervm_rt.transports.remote.places import Place, for_image, for_socket
from supervm_rt.transports.shortage import host_error

if TYPE_CHECKING:
    from supervm_rt.transports.remote.server import RemoteServer
    from supervm_rt.transports.remote.transport import RemoteTransport

_logger = logging.getLogger("supervm_rt")
RESERVED_BYTES = 128 << 20
"""What a runtime may reserve beyond the memory that is granted, and not use: Go takes 64 MiB at once."""
MOST_IMAGE_BYTES = 8 << 30
_OWN_PROGRAMS = 2
"""seccomp programs around it: its profile's, and the one about exit statuses."""
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
        complete: bool = False,
    ) -> None:
        """``code`` is closed at the end. ``folder``: the plugin's. ``storage``: where it may write, where that is granted.

        ``complete``: no quota that is not enforced will do.
        """
        self._server = server
        self._code = code
        self._manifest = manifest
        self._plugin = plugin
        self._folder = folder
        self._read_paths = read_paths
        self._beside = storage
        self._folder_of_storage = storage if manifest.resources.storage else None
        self._complete = complete
        self._storage: Storage | None = None
        self._group: Group | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: tuple[Output, ...] = ()
        self._scope = trio.CancelScope()
        """Of its socket."""
        self._watch_scope = trio.CancelScope()
        self._ended = trio.Event()
        self._watching = False
        self._places: list[Place] = []
        self._control: socket.socket | None = None
        """From it comes, once, what says that the program is confined."""
        self._connections: Connections | None = None
        self._quotas: Watch | None = None
        self._transport: RemoteTransport | None = None
        self._doomed: ChildEnded | HostError | None = None
        self.confinement: Confinement | None = None

    async def start(self, transport: RemoteTransport) -> None:
        """Starts it; what a cancellation leaves, ``end`` takes away.

        Raises HostError, ConfigurationError, LoadError, PolicyRefused.
        """
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
        resources = self._manifest.resources
        if self._folder_of_storage is not None:
            folder, size, launch = self._folder_of_storage, resources.storage or 0, tuple(launch_command())
            self._storage = await trio.to_thread.run_sync(lambda: prepare(folder, size, user, launch))
        self._group, quotas = enforce(here, resources, self._storage, shared=0, memory="polling")
        self.confinement = Confinement(
            degraded=False,
            user=os.geteuid() if user is None else user,
            landlock=here.landlock,
            seccomp_profile=self._manifest.security.seccomp_profile,
            quotas=quotas,
        )
        if self._complete:
            refuse_less(self._plugin, here, self.confinement)
        place = await self._make_place(for_socket)
        place.path.chmod(0o711)
        image = await self._unpack(self._code) if isinstance(self._code, Layout) else None
        await self._server.listen_for(self._plugin, place.path / "socket", self._scope)
        self._spawn(here, image, place.path / "socket", user)
        await self._entered(place.path / "socket")
        self._server.nursery.start_soon(self._watch)
        self._watching = True

    async def _make_place(self, make: Callable[[], Place]) -> Place:
        place = await trio.to_thread.run_sync(make)
        self._places.append(place)
        return place

    async def _unpack(self, layout: Layout) -> Image:
        most = min(self._manifest.resources.storage or MOST_IMAGE_BYTES, MOST_IMAGE_BYTES)
        place = await self._make_place(lambda: for_image(self._beside))
        folder = place.path / "image"
        folder.mkdir(mode=0o755)
        begun = time.monotonic()
        self._server.report(EventKind.REMOTE_UNPACKING, f"{self._plugin}: its image is unpacked into {folder}")
        image = await trio.to_thread.run_sync(
            lambda: layout.unpack(folder, most_bytes=most, check=trio.from_thread.check_cancelled)
        )
        folder.chmod(0o755)
        self._server.report(
            EventKind.REMOTE_UNPACKING,
            f"{self._plugin}: its image is unpacked: {image.files} files and folders, {image.size} bytes "
            f"in {time.monotonic() - begun:.1f} s",
            data={"files": image.files, "bytes": image.size},
        )
        return image

    def _confining(self, image: Image | None, shown: list[Path]) -> list[str]:
        """What supervm-enter is told: limits, and what may be done with which path."""
        resources = self._manifest.resources
        data = "-" if resources.memory is None else str(resources.memory + RESERVED_BYTES)
        if image is None:
            executed = [*library_folders(), PROGRAM_PATH]
            read = [LINKER_CACHE]
        else:
            executed = [f"/{entry.name}" for entry in sorted(image.root.iterdir())]
            read = []
        paths = [("x", path) for path in executed] + [("r", path) for path in (*read, *map(str, shown))]
        paths += [("l", "/")] if image is not None else []
        paths += [("w", INSIDE)] if self._storage is not None else []
        file_size = str(resources.storage if self._storage is not None else 0)
        return [data, str(MOST_TASKS), file_size, *(word for rule in paths for word in rule), "--"]

    def _spawn(self, here: Machine, image: Image | None, socket_: Path, user: int | None) -> None:
        granted = (*(("reading",) if self._read_paths else ()), *(("storage",) if self._storage is not None else ()))
        profile = read_profile(self._manifest.security.seccomp_profile, plugin_folder=self._folder)
        opened: list[int] = []
        try:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            opened.append(theirs.detach())
            self._control.setblocking(False)
            ask_for_sender(self._control)
            filter_ = os.memfd_create("supervm-seccomp", os.MFD_CLOEXEC)
            opened.append(filter_)
            os.write(filter_, compile_program(profile, granted))
            enter = os.open(f"/proc/self/fd/{program('supervm-enter').fd}", os.O_RDONLY | os.O_CLOEXEC)
            opened.append(enter)
            shown = [path for path in self._read_paths.values() if path.exists()]
            contents = ["--perms", "0555", "--ro-bind-data", str(enter), ENTER_PATH, "--ro-bind", str(socket_), SOCKET_PATH]
            if image is None:
                assert isinstance(self._code, SealedLibrary)
                code = os.open(f"/proc/self/fd/{self._code.fd}", os.O_RDONLY | os.O_CLOEXEC)
                opened.append(code)
                contents += ["--perms", "0555", "--ro-bind-data", str(code), PROGRAM_PATH]
                started: tuple[str, ...] = (PROGRAM_PATH,)
                environment: tuple[tuple[str, str], ...] = ()
                folder = INSIDE if self._storage is not None else "/"
            else:
                places = [SOCKET_PATH, ENTER_PATH, *([] if self._storage is None else [INSIDE]), *map(str, shown)]
                self._check_mounts(image, places)
                self._check_folder(image, shown)
                started, environment, folder = image.command, image.environment, image.folder
            # As the first process of its namespace: bubblewrap itself would be beside it, if it stayed there.
            options = ["--as-pid-1", "--chdir", folder]
            for name, value in (*environment, ("SUPERVM_SOCKET", SOCKET_PATH), ("SUPERVM_PLUGIN", self._plugin)):
                options += ["--setenv", name, value]
            command = sandbox(
                here,
                user,
                groups=self._group.folders if self._group else (),
                read_paths=shown,
                storage=self._storage,
                image=None if image is None else image.root,
                contents=contents,
                options=options,
                program=(ENTER_PATH, str(opened[0]), str(filter_), *self._confining(image, shown), *started),
            )
            passed = tuple(opened)
            for name, level in (("stdout", _INFO), ("stderr", _WARNING)):
                reads, writes = os.pipe2(os.O_CLOEXEC)
                opened.append(writes)
                os.set_blocking(reads, False)
                self._outputs += (Output(reads, name, level),)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=opened[-2],
                stderr=opened[-1],
                pass_fds=passed,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise host_error(self._plugin, "no process could be started for it", error) from None
        finally:
            for descriptor in opened:
                os.close(descriptor)

    async def _entered(self, socket_: Path) -> None:
        """Waits until it is confined, and asks the kernel whether it is so. Raises HostError."""
        assert self._control is not None
        assert self._process is not None
        assert self.confinement is not None
        runs, listener = 0, -1
        await trio.lowlevel.wait_readable(self._control)
        with contextlib.suppress(OSError):
            runs, listener = receive_with_descriptor(self._control)
        if listener < 0:
            await self._wait_process(END_SECONDS)
            for output in self._outputs:
                output.drain_all()
            last = next((line for output in reversed(self._outputs) if (line := output.last_line())), "")
            raise HostError(
                f"{self._plugin}: the sandbox cannot be put up ({last or f'status {self._process.poll()}'})",
                remedy="look at what this kernel offers and allows",
            )
        self._connections = Connections(listener, SOCKET_PATH, socket_)
        missing = what_is_missing(runs, namespaces=True, programs=_OWN_PROGRAMS)
        if missing:
            await self._wait_process(TOLD_SECONDS)
        if missing and self._process.poll() is None:
            raise HostError(
                f"{self._plugin}: whether it is confined cannot be verified: {missing}",
                remedy="mount /proc without hidepid for the node's user, and use Linux 5.9 or later",
            )
        user = user_of(runs)
        if user is not None:  # it may be the owner of what it reads
            self.confinement = dataclasses.replace(self.confinement, user=user)
        with contextlib.suppress(ProcessLookupError):  # it has ended, as the wait for its registration tells
            pauses = self.confinement.quotas.get("cpu") == "polling"
            resources = self._manifest.resources
            self._quotas = Watch(runs, resources, self._group, self._storage, pauses=pauses, used_memory=True)

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

    def _check_folder(self, image: Image, shown: Iterable[Path]) -> None:
        """Raises LoadError where it cannot be started in its working folder."""
        folder = Path(image.folder)
        if image.folder_is_there or (self._storage is not None and image.folder == INSIDE):
            return
        if not any(folder.is_relative_to(path) for path in shown) or not folder.is_dir():
            raise LoadError(
                f"{self._plugin}: its WorkingDir {image.folder[:100]} is no folder in it",
                remedy="make it in the image, or leave WorkingDir out",
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
            except Exception as error:  # whatever it is, it concerns this plugin alone, and not the server
                cause: BaseException = error
                while isinstance(cause, BaseExceptionGroup):  # a nursery's
                    cause = cause.exceptions[0]
                if not isinstance(cause, OSError):
                    _logger.error("%s: its process cannot be watched", self._plugin, exc_info=error)
                    cause = OSError(0, repr(cause))
                self._doomed = host_error(self._plugin, "its process cannot be watched", cause)
                self.kill()
                transport.process_ended()
            finally:
                self._ended.set()

    async def _watch_process(self, process: subprocess.Popen[bytes], transport: RemoteTransport) -> None:
        async with trio.open_nursery() as nursery:
            for output in self._outputs:
                nursery.start_soon(self._hand_on, output)
            if self._connections is not None:
                nursery.start_soon(self._connections.serve)
            if self._quotas is not None:
                nursery.start_soon(self._watch_quotas, self._quotas, transport)
            if process.poll() is None:  # once it is reaped, its number may be another's
                descriptor = os.pidfd_open(process.pid)
                try:
                    await trio.lowlevel.wait_readable(descriptor)
                finally:
                    os.close(descriptor)
                process.wait()
            self._ended.set()
            for output in self._outputs:
                output.drain_all()
                self._say(output)
            transport.process_ended()
            nursery.cancel_scope.cancel()

    async def _hand_on(self, output: Output) -> None:
        while not output.ended:
            await trio.lowlevel.wait_readable(output.descriptor)
            output.drain()
            self._say(output)
            if output.flooded:
                await trio.sleep(FLOOD_PAUSE)

    @property
    def dropped(self) -> int:
        """Lines that it printed and that were dropped, before they counted as log lines."""
        return sum(output.dropped for output in self._outputs)

    def _say(self, output: Output) -> None:
        assert self._transport is not None
        for message in output.take():
            self._transport.say(message, sign=False)

    async def _watch_quotas(self, quotas: Watch, transport: RemoteTransport) -> None:
        """Tells what has run out, and ends a program that took more than its manifest grants."""
        while True:
            await trio.sleep(CPU_SECONDS if quotas.pauses else LOOK_SECONDS)
            exhausted, breach = await quotas.look()
            for each in exhausted:
                transport.run_out(each)
            if breach:
                self._doomed = ChildEnded(
                    f"{self._plugin}: {breach}",
                    cause="quota",
                    remedy="raise resources in its manifest, or ask its author",
                )
                self.kill()
                return

    @property
    def paused(self) -> bool:
        """It is stopped for a while, for want of processor time."""
        return self._quotas is not None and self._quotas.paused

    @property
    def continued(self) -> float:
        """When it was last let run on, by the monotonic clock."""
        return 0.0 if self._quotas is None else self._quotas.continued

    def let_go(self) -> None:
        """It may run on, to come to its end."""
        if self._quotas is not None:
            self._quotas.let_go()

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

    async def explain(self, error: PluginError) -> PluginError | HostError:
        """What says more than that the connection was lost: how the process ended, if it does so now."""
        with trio.move_on_after(1.0):
            await self._ended.wait()
        return self.how_it_ended() if self._ended.is_set() else error

    def how_it_ended(self) -> PluginError | HostError:
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
        """Ends it at once, and all that it started."""
        if self._process is not None:
            kill(self._process)

    async def _wait_process(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._process is not None and self._process.poll() is None:  # noqa: ASYNC110 - reaping is an event of the kernel's
                await trio.sleep(0.002)

    async def end(self, seconds: float) -> None:
        """Waits so long for its end, kills it, and leaves nothing of it. To be shielded."""
        if self._process is not None:
            self.let_go()
            if self._watching:
                with trio.move_on_after(seconds):
                    await self._ended.wait()
            self.kill()
            await self._wait_process(END_SECONDS)
        self._scope.cancel()
        self._watch_scope.cancel()
        if self._watching:
            await self._ended.wait()
        for output in self._outputs:
            with contextlib.suppress(OSError):
                os.close(output.descriptor)
        self._outputs = ()
        if self._quotas is not None:
            self._quotas.close()
        if self._connections is not None:
            self._connections.close()
        if self._control is not None:
            self._control.close()
        with trio.move_on_after(END_SECONDS):
            while self._group is not None and not self._group.remove():  # noqa: ASYNC110 - the kernel counts for a moment longer
                await trio.sleep(0.002)
        while self._places:
            await trio.to_thread.run_sync(self._places.pop().remove)
        if isinstance(self._code, SealedLibrary):
            self._code.close()
