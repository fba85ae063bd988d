"""A native plugin in a confined child process (clauses T2, S1): the same library, unmodified, over rings in shared memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import select
import socket
import time
from pathlib import Path

import trio

from supervm_rt._abi import MESSAGE_TRANSACTION, Message, RingStatistics, SealedLibrary, SharedChannel
from supervm_rt.errors import ChildEnded, ConfigurationError, HostError, LifecycleError, LoadError, PluginHung, RingCorrupt
from supervm_rt.model.manifest import Capability, Resources, Security
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.allowance import Allowance
from supervm_rt.transports.interface import CallOverdue, Confinement, Exhausted, Received
from supervm_rt.transports.native.child import control, launcher
from supervm_rt.transports.native.child.cgroups import Group
from supervm_rt.transports.native.child.control import Kind, Limits, Reply
from supervm_rt.transports.native.child.ending import END_SECONDS, TOLD_SECONDS, describe, why_not_loaded
from supervm_rt.transports.native.child.enforcing import MOST_TASKS, enforce, refuse_less
from supervm_rt.transports.native.child.host import Machine, launch_command, machine, user_for
from supervm_rt.transports.native.child.output import FLOOD_PAUSE, Output
from supervm_rt.transports.native.child.quotas import CPU_SECONDS, LOOK_SECONDS, Watch
from supervm_rt.transports.native.child.seccomp import compile_profile, counts_memory, read_profile
from supervm_rt.transports.native.child.storage import Storage, prepare
from supervm_rt.transports.native.child.verifying import receive_with_sender, user_of, what_is_missing
from supervm_rt.transports.native.in_process import MAX_FRAMES, MAX_MESSAGES
from supervm_rt.transports.native.life import NativeLife
from supervm_rt.transports.shortage import NO_DESCRIPTOR, host_error
from supervm_rt.trust.policy import Placement

SIDE_RING_BYTES = 4 << 20
MESSAGES_A_SECOND = 2_000
MESSAGES_AT_ONCE = 8_192
SLOW_POLL = 0.25
"""Seconds after which the host looks, also where nobody woke it: waking is the child's business."""
GLANCE_SECONDS = 0.001
"""Between two looks at the process itself and at what it prints, while it has frames to give."""
MOST_EMPTY_WAKES = 16
EMPTY_WAKE_PAUSE = 0.01
"""Seconds between two looks, once the child woke the host so often for nothing."""
_GRANTS = {Capability.BLOCK_STREAM: 2, Capability.SUBMIT_TX: 4}
_INFO, _WARNING = 2, 3


class ChildTransport(NativeLife):
    """One life of one library in one process. See PluginTransport for the contract."""

    placement = Placement.CHILD

    def __init__(
        self,
        library: SealedLibrary,
        *,
        name: str,
        generation: int,
        ring_bytes: int,
        heartbeat: float | None,
        deadlines: Deadlines,
        security: Security,
        folder: Path,
        read_paths: dict[str, Path],
        resources: Resources = Resources(),  # noqa: B008 - frozen
        storage: Path | None = None,
        complete: bool = False,
        network: socket.socket | None = None,
    ) -> None:
        """See NativeLife. ``folder``: the plugin's. ``read_paths``: absolute paths by configuration key.

        ``storage``: its folder, made where there is none; used where the manifest grants some.
        ``complete``: neither the degraded mode nor a quota that is not enforced will do.
        """
        super().__init__(
            library,
            name=name,
            generation=generation,
            ring_bytes=ring_bytes,
            heartbeat=heartbeat,
            deadlines=deadlines,
            network=network,
        )
        self._security = security
        self._folder = folder
        self._read_paths = read_paths
        self._resources = resources
        self._storage_folder = storage if resources.storage else None
        self._storage: Storage | None = None
        self._watch: Watch | None = None
        self._exhausted: list[Exhausted] = []
        self._complete = complete
        self._group: Group | None = None
        self._channel: SharedChannel | None = None
        self._child: launcher.Child | None = None
        self._outputs: tuple[Output, ...] = ()
        self._sources: select.epoll | None = None
        """What receive sleeps on: the rings' event, the process, the control channel, what the process prints."""
        self._answers: select.epoll | None = None
        """What a call sleeps on: the control channel, what the process prints."""
        self._inbox = control.Inbox()
        self._pending = b""
        self._entered = False
        self._runner = 0
        """The process that hosts the plugin, by its number here, as the kernel told it before foreign code ran; 0: not yet."""
        self._initialised: int | None = None
        self._asked_init = False
        self._asked_start = False
        self._started = False
        self._allowance = Allowance(rate=MESSAGES_A_SECOND, burst=MESSAGES_AT_ONCE)
        self._empty_wakes = 0
        self._looked = -math.inf
        """When the kernel was last asked about its process."""
        self._doomed: ChildEnded | None = None
        """Why the host itself ended it."""
        self.confinement: Confinement | None = None

    # ---- loading -------------------------------------------------------------------------------------------------------------

    @property
    def _ends(self) -> SharedChannel:
        if self._channel is None:
            raise LifecycleError(f"{self._name}: not loaded")
        return self._channel

    @property
    def _process(self) -> launcher.Child:
        if self._child is None:
            raise LifecycleError(f"{self._name}: not loaded")
        return self._child

    async def load(self) -> bytes:
        """Starts the process and waits until it has loaded the library. Raises LoadError, CallOverdue, ChildEnded, HostError."""
        self._take("load")
        try:
            return await self._load()
        except OSError as error:
            raise host_error(self._name, "it cannot be started", error) from None

    async def _load(self) -> bytes:
        here = await trio.to_thread.run_sync(machine)
        if self._storage_folder is not None:
            launch = None if here.bubblewrap is None else tuple(launch_command())
            size = self._resources.storage or 0
            self._storage = await trio.to_thread.run_sync(prepare, self._storage_folder, size, user_for(self._name), launch)
        self._start(here)
        self._inbox.owe(Kind.ENTERED, Kind.LOADED, Kind.FAILED)
        said = (await self._answer(self._deadlines.load, "loading", Kind.LOADED)).text
        await self._verify()
        self._next = "grant"
        return said

    def _start(self, here: Machine) -> None:
        if here.bubblewrap is None and here.landlock == 0:
            raise HostError(
                f"{self._name}: this machine allows neither user namespaces ({here.why_degraded}) nor Landlock",
                remedy="allow user namespaces (sysctl user.max_user_namespaces), or use a kernel with Landlock",
            )
        for key, path in self._read_paths.items():
            launcher.check_read_path(self._name, key, path)
        paths = list(self._read_paths.values())
        if len(paths) > launcher.MOST_READ_PATHS:
            raise ConfigurationError(f"{self._name}: more than {launcher.MOST_READ_PATHS} paths are to be read")
        profile = read_profile(self._security.seccomp_profile, plugin_folder=self._folder)
        granted = (*(("reading",) if paths else ()), *(("storage",) if self._storage is not None else ()))
        granted += ("network",) if self._network is not None else ()
        try:
            self._channel = SharedChannel(
                self._name, ring_bytes=self._ring_bytes, side_ring_bytes=SIDE_RING_BYTES, generation=self._generation
            )
        except (MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
                raise
            raise self._no_room(error) from None
        user = user_for(self._name)
        memory = "rlimit" if counts_memory(profile, ("running", "loading", *granted)) else "polling"
        shared = self._ring_bytes + SIDE_RING_BYTES
        self._group, quotas = enforce(here, self._resources, self._storage, shared=shared, memory=memory)
        self.confinement = Confinement(
            degraded=here.bubblewrap is None,
            user=os.geteuid() if user is None else user,
            landlock=here.landlock,
            seccomp_profile=self._security.seccomp_profile,
            quotas=quotas,
        )
        if self._complete:
            refuse_less(self._name, here, self.confinement)
        self._child = child = launcher.start(
            here,
            self._library,
            plugin=self._name,
            read_paths=paths,
            groups=self._group.folders if self._group else [],
            storage=self._storage,
        )
        self._outputs = (Output(child.outputs[0], "stdout", _INFO), Output(child.outputs[1], "stderr", _WARNING))
        self._sources, self._answers = select.epoll(), select.epoll()
        for source in (self._channel.event_fd, child.pidfd, child.control.fileno(), *child.outputs):
            self._sources.register(source, select.EPOLLIN)
        for source in (child.control.fileno(), *child.outputs):
            self._answers.register(source, select.EPOLLIN)
        # Without namespaces the limit would count every process of the host's user.
        tasks = None if child.degraded and os.geteuid() != 0 else MOST_TASKS
        setup = control.setup(
            ring_bytes=self._ring_bytes,
            side_ring_bytes=SIDE_RING_BYTES,
            limits=Limits(
                memory=self._resources.memory, tasks=tasks, file_size=self._resources.storage if self._storage is not None else 0
            ),
            heartbeat_ms=round(self.longest_silence * 1000),
            plugin_by_descriptor=child.degraded,
            network=self._network is not None,
            landlock_required=child.degraded,
            # Only who owns its namespaces, or is root, may look into a process that is not dumpable.
            measured=child.degraded and os.geteuid() != 0 and self._storage is not None,
            loading=compile_profile(profile, ("running", "loading", *granted)),
            running=compile_profile(profile, ("running", *granted)),
            paths=launcher.landlock_paths(here, paths, self._storage),
        )
        network = [] if self._network is None else [self._network.fileno()]
        descriptors = [*self._channel.descriptors, *network, *((self._library.fd,) if child.degraded else ())]
        with contextlib.suppress(OSError):  # it has ended already, which the wait for its answer will tell
            launcher.hand_over(child, setup, descriptors)
        self._channel.close_descriptors()
        if self._network is not None:
            self._network.close()

    async def _verify(self) -> None:
        """Asks the kernel whether the plugin is confined as the runner says. Raises LoadError, HostError, and ends it."""
        missing = what_is_missing(self._runner, namespaces=not self._process.degraded)
        if not missing:
            assert self.confinement is not None
            user = user_of(self._runner)
            if user is not None:  # it may be the owner of what it reads
                self.confinement = dataclasses.replace(self.confinement, user=user)
            return
        # What the kernel shows no more has ended, which bubblewrap may still have to tell.
        ended = await self._wait_ended(TOLD_SECONDS) if missing.startswith("/proc") else self._has_ended()
        self._kill()
        if ended:
            return  # the next call says how it ended
        if missing.startswith("/proc"):
            raise HostError(
                f"{self._name}: whether it is confined cannot be verified: {missing}",
                remedy="mount /proc without hidepid for the node's user, and use Linux 5.9 or later",
            )
        raise LoadError(
            f"{self._name}: while it was loaded it kept the sandbox from being closed ({missing} is not around it)",
            remedy="its constructors did what no plugin does; ask its author",
        )

    def _begin_watch(self) -> None:
        """From here on the plugin's code runs, its constructors first."""
        assert self.confinement is not None
        if self._watch is None and self._runner:
            with contextlib.suppress(ProcessLookupError):  # it has ended, as its next answer says
                self._watch = Watch(
                    self._runner,
                    self._resources,
                    self._group,
                    self._storage,
                    pauses=self.confinement.quotas.get("cpu") == "polling",
                    shared=self._ring_bytes + SIDE_RING_BYTES,
                )

    # ---- calls ---------------------------------------------------------------------------------------------------------------

    def _ask(self, message: bytes) -> None:
        """Sends one message. The runner reads whenever it is not inside plugin_stop, so a full socket is a broken runner."""
        view = memoryview(message)
        try:
            while view:
                view = view[self._process.control.send(view) :]
        except BlockingIOError:
            self._doom("it does not read its control channel")
        except OSError:
            return  # it has ended, which the wait for its answer will tell

    async def _send(self, message: bytes) -> None:
        """Sends one message, however large."""
        view = memoryview(message)
        while view:
            try:
                view = view[self._process.control.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._process.control)
            except OSError:
                return

    async def _answer(self, seconds: float, what: str, kind: Kind, *, spent: float = 0.0) -> Reply:
        """Waits for the runner's answer. Raises CallOverdue, ChildEnded, LoadError; it can be waited for again after a cancel."""
        with trio.move_on_after(max(seconds - spent, 0.0)):
            while True:
                try:
                    while (reply := self._inbox.take()) is not None:
                        self._note(reply)
                        if reply.kind is kind:
                            return reply
                except control.ControlBroken as fault:
                    self._doom(f"it broke its control channel: {fault}")
                if not await self._hear():
                    raise await self._how_it_ended()
        raise self._overdue(what, seconds)

    def _overdue(self, what: str, seconds: float) -> CallOverdue:
        return CallOverdue(f"{self._name}: {what} did not return within {seconds:g} s", remedy="the plugin hangs; ask its author")

    async def _hear(self) -> bool:
        """Waits for bytes on the control channel. False: it has ended."""
        assert self._answers is not None
        while True:
            self._drain()
            try:
                data, sender = receive_with_sender(self._process.control, 65_536)
            except BlockingIOError:
                if self._flooded:
                    await trio.sleep(FLOOD_PAUSE)
                with trio.move_on_after(CPU_SECONDS if self._watch and self._watch.pauses else LOOK_SECONDS):
                    await trio.lowlevel.wait_readable(self._answers.fileno())
                await self._check_quotas()
                continue
            except OSError:
                return False
            if not self._runner:  # the first that it says it says before the plugin's code runs
                self._runner = sender
            self._inbox.feed(data)
            return bool(data)

    def _note(self, reply: Reply) -> None:
        match reply.kind:
            case Kind.ENTERED:
                self._entered = True
                self._begin_watch()
            case Kind.INITIALISED:
                self._initialised = reply.value
            case Kind.STARTED:
                self._started = True
            case Kind.FAILED:
                raise why_not_loaded(self._name, reply.value, reply.text, confined=self._entered)

    def grant(self, *, capabilities: frozenset[Capability], configuration: bytes, position: bytes | None) -> None:
        """Says what host_get_extension and the callbacks may answer."""
        self._take("grant")
        grants = sum(_GRANTS.get(capability, 0) for capability in capabilities)
        if len(configuration) + len(position or b"") > control.MAX_GRANT_BYTES:
            raise ConfigurationError(f"{self._name}: the settings are larger than {control.MAX_GRANT_BYTES} bytes")
        self._pending = control.grant(grants, configuration, position)
        self._next = "init"

    async def init(self) -> None:
        """plugin_init."""
        self._take("init")
        begun, limit = trio.current_time(), self._deadlines.init
        with trio.move_on_after(limit) as sending:
            await self._send(self._pending)
        if sending.cancelled_caught:
            raise self._overdue("plugin_init", limit)
        self._inbox.owe(Kind.INITIALISED)
        self._asked_init = True
        self._ask(control.message(Kind.INIT))
        spent = trio.current_time() - begun
        self._check("plugin_init", (await self._answer(limit, "plugin_init", Kind.INITIALISED, spent=spent)).value)
        self._next = "start"

    async def start(self) -> None:
        """plugin_start."""
        self._take("start")
        self._inbox.owe(Kind.STARTED)
        self._asked_start = True
        self._start_begun = trio.current_time()
        self._ask(control.message(Kind.START))
        self._check("plugin_start", (await self._answer(self._deadlines.start, "plugin_start", Kind.STARTED)).value)

    # ---- what it says --------------------------------------------------------------------------------------------------------

    async def receive(self) -> Received:
        """Waits until it said or printed something. Raises ChildEnded once all that was said is taken."""
        ends = self._ends
        assert self._sources is not None
        # No checkpoint between taking frames and returning them: a cancellation there would lose what was taken.
        await trio.lowlevel.checkpoint()
        while True:
            # While frames flow, the kernel is asked about the process, and for what it prints, only now and then.
            now = time.monotonic()
            ended, due = False, now >= self._looked + GLANCE_SECONDS
            if due:
                self._looked = now
                await self._check_quotas()
                ended = self._has_ended()
            received = self.receive_rest(printed=due)
            if received:
                self._empty_wakes = 0
                return received
            if not due:
                self._looked = -math.inf
                continue
            if ended or self._hung_up():
                raise await self._how_it_ended()
            self._empty_wakes += 1
            if self._empty_wakes > MOST_EMPTY_WAKES or self._flooded:
                await trio.sleep(EMPTY_WAKE_PAUSE)
            if not ends.prepare_wait():
                await trio.lowlevel.checkpoint()  # there may be nothing at all: the child's words are claims
                continue
            try:
                with trio.move_on_after(SLOW_POLL) as poll:
                    await trio.lowlevel.wait_readable(self._sources.fileno())
            finally:
                ends.finish_wait()
            if poll.cancelled_caught:
                self._empty_wakes = 0

    async def _check_quotas(self) -> None:
        """Notes what has run out, and ends a plugin that took more than its manifest grants."""
        if self._watch is None or self._has_ended():
            return
        exhausted, breach = await self._watch.look()
        self._exhausted += exhausted
        if breach:
            self._doom(breach, cause="quota")

    def _hung_up(self) -> bool:
        """Whether the control channel is closed, or says what nobody asked for. While an answer is owed, its waiter hears it."""
        if self._inbox.owed:
            return False
        try:
            data = self._process.control.recv(65_536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if data:
            self._doom("it wrote to its control channel unasked")
        return True

    def gather(self, received: Received) -> Received:
        """Joins what is copied out of the ring in stretches, up to what in process is read at once."""
        frames = list(received.frames)
        size = sum(map(len, frames))
        with contextlib.suppress(RingCorrupt):  # receive says so the next time
            while frames and len(frames) < MAX_FRAMES and size < self._ring_bytes // 4:
                more = self._ends.read(MAX_FRAMES - len(frames), self._ring_bytes // 4 - size)
                if not more:
                    break
                frames += more
                size += sum(map(len, more))
        return dataclasses.replace(received, frames=frames)

    def receive_rest(self, *, printed: bool = True) -> Received:
        """What is there now. Raises RingCorrupt. ``printed``: also what it prints."""
        if printed:
            self._drain()
        ends = self._ends
        try:
            messages = self._allowed(ends.read_messages(MAX_MESSAGES))
            exhausted, self._exhausted = self._exhausted, []
            # Frames last: an error about the messages would lose them.
            frames = ends.read(MAX_FRAMES, self._ring_bytes // 4)
            return Received(
                frames=frames, messages=messages, shutdown=self._news_of_shutdown(ends.shutdown_request), exhausted=exhausted
            )
        except RingCorrupt as error:
            self._doomed = self._doomed or ChildEnded(error.message, cause="corrupt-ring", remedy=error.remedy)
            self._kill()
            raise

    def _allowed(self, said: list[Message]) -> list[Message]:
        """Log lines and metrics within the allowance, printed lines too; transactions have a bound of their own."""
        if not said and not any(output.waits for output in self._outputs):
            return said
        transactions = [message for message in said if message.kind == MESSAGE_TRANSACTION]
        lossy = [message for message in said if message.kind != MESSAGE_TRANSACTION]
        for output in self._outputs:
            lossy += output.take()
        return [*lossy[: self._allowance.take(len(lossy))], *transactions]

    @property
    def _flooded(self) -> bool:
        return any(output.flooded for output in self._outputs)

    def _drain(self) -> None:
        ended = self._has_ended()
        for output in self._outputs:
            if ended:
                output.drain_all()
            else:
                output.drain()
            if output.ended:
                for poll in (self._sources, self._answers):
                    with contextlib.suppress(OSError, ValueError):
                        if poll is not None:
                            poll.unregister(output.descriptor)

    # ---- the end -------------------------------------------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        return self._child is None or self._child.process.poll() is not None

    def _doom(self, why: str, cause: str = "control") -> None:
        """Ends the process for what it did."""
        if self._doomed is None:
            remedies = {"quota": "raise resources in its manifest, or ask its author"}
            remedy = remedies.get(cause, "it is not to be trusted; ask its author")
            self._doomed = ChildEnded(f"{self._name}: {why}", cause=cause, remedy=remedy)
        self._kill()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    async def _wait_ended(self, seconds: float) -> bool:
        """Whether the process ended within so many seconds. Several tasks may wait, which a descriptor would not let them."""
        with trio.move_on_after(seconds):
            while not self._has_ended():  # noqa: ASYNC110 - a process that is reaped is an event of the kernel's
                await trio.sleep(0.002)
        return self._has_ended()

    async def _how_it_ended(self) -> Exception:
        """The error that says why the process ended. Whatever is left of it is killed first."""
        child = self._process
        with trio.CancelScope(shield=True):
            # The runner closed its channel; the process itself follows, unless its plugin closed it.
            if not await self._wait_ended(TOLD_SECONDS):
                self._doom("it closed its control channel")
                await self._wait_ended(END_SECONDS)
        self._drain()
        if self._doomed is not None:
            return self._doomed
        status = child.process.poll()
        last = next((line for output in reversed(self._outputs) if (line := output.last_line())), "")
        if not self._entered:
            return HostError(
                f"{self._name}: the sandbox cannot be put up ({last or f'status {status}'})",
                remedy="look at what this kernel offers and allows",
            )
        if self._group is not None and self._group.killed_for_memory():
            return ChildEnded(
                f"{self._name}: it used more memory than the {self._resources.memory or 0} bytes of its manifest, and was killed",
                cause="quota",
                remedy="raise resources.memory in its manifest, or ask its author",
            )
        return describe(self._name, -9 if status is None else status, last)

    async def stop(self) -> None:
        """Ends every wait of the plugin inside the sink, then plugin_stop where init answered 0; then its process.

        A plugin_start that is under way has its own deadline first. Raises PluginHung, ChildEnded, LifecycleError.
        """
        ends = self._ends
        self._take_stop()
        if self._watch is not None:
            self._watch.let_go()
        ends.begin_stop()
        limit = self._deadlines.stop
        with trio.CancelScope(shield=True):
            try:
                if self._asked_init and self._initialised is None:
                    await self._answer(limit, "plugin_init", Kind.INITIALISED)
                if self._initialised != 0 or self._has_ended():
                    return
                if self._asked_start and not self._started:
                    # Called now, plugin_stop could overtake it. Only where start is overdue is it to run beside it.
                    spent = trio.current_time() - self._start_begun
                    with contextlib.suppress(CallOverdue):
                        await self._answer(self._deadlines.start, "plugin_start", Kind.STARTED, spent=spent)
                begun = trio.current_time()
                self._inbox.owe(Kind.STOPPED)
                self._ask(control.message(Kind.STOP))
                reply = await self._answer(limit, "plugin_stop", Kind.STOPPED)
                if self._asked_start and not self._started:
                    await self._answer(limit, "plugin_start", Kind.STARTED, spent=trio.current_time() - begun)
            except CallOverdue as overdue:
                # Not CallOverdue: nothing of it still runs.
                raise PluginHung(f"{overdue.message}; its process was killed", remedy=overdue.remedy) from None
            finally:
                self._kill()  # what a thread of it goes on to write would never be all taken
        self._check("plugin_stop", reply.value)

    async def unload(self) -> None:
        """Ends the process, and waits until nothing of it is left. Raises LifecycleError where the kernel does not end it."""
        self._over = True
        with trio.CancelScope(shield=True):
            if self._child is not None:
                if not self._has_ended():
                    self._ask(control.message(Kind.UNLOAD))
                    await self._wait_ended(min(self._deadlines.stop, 1.0))
                self._kill()
                if not await self._all_gone() or not await self._remove_group():
                    raise LifecycleError(f"{self._name}: its process does not end", remedy="the kernel keeps it; see dmesg")
            elif self._group is not None:  # no process was started
                await self._remove_group()
            self._give_back()

    async def _all_gone(self) -> bool:
        """Whether process and runner are gone: the runner holds the only other end of the control channel."""
        assert self._child is not None
        if not await self._wait_ended(END_SECONDS):
            return False
        with trio.move_on_after(END_SECONDS):
            while True:
                self._drain()
                try:
                    if not self._child.control.recv(65_536):
                        break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._child.control)
                except OSError:
                    break
            return True
        return False

    async def _remove_group(self) -> bool:
        """Whether the control group is gone: the kernel may count an ended process for a moment."""
        with trio.move_on_after(END_SECONDS):
            while self._group is not None:
                if self._group.remove():
                    self._group = None
                else:
                    await trio.sleep(0.002)
        return self._group is None

    def _give_back(self) -> None:
        for poll in (self._sources, self._answers):
            if poll is not None:
                poll.close()
        if self._watch is not None:
            self._watch.close()
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._channel is not None:
            self._channel.close()
        self._library.close()

    def abandon(self) -> None:
        """Gives up a process that the kernel does not end."""
        self._over = True
        self._kill()
        if self._child is not None:
            self._give_back()

    def silence(self) -> float | None:
        """Seconds since the last sign of life, for a plugin that asked for the heartbeat or whose manifest sets one."""
        if self._channel is None or self._channel.closed or not self._asked_start or (self._watch and self._watch.paused):
            return None
        last = self._channel.last_sign_of_life
        if self._watch is not None:
            last = max(last, int(self._watch.continued * 1e9))
        return self._silence_since(last, asked=self._channel.heartbeat_asked)

    def statistics(self) -> RingStatistics | None:
        """Counters of the ring, what the host itself dropped included."""
        if self._channel is None:
            return None
        counted = self._channel.statistics()
        dropped = self._allowance.refused + sum(output.dropped for output in self._outputs)
        return dataclasses.replace(counted, dropped_messages=counted.dropped_messages + dropped)
