"""Serves the requests of one plugin's life: resolve, check, dial, report, hand over (clause S3).

What is checked is what is dialled: the addresses that one resolution gave, and nothing is resolved again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import trio

from supervm_rt._abi import printable
from supervm_rt.errors import HostError, LifecycleError
from supervm_rt.model.network import Address
from supervm_rt.transports.allowance import Allowance
from supervm_rt.transports.network import wire
from supervm_rt.transports.network.dialling import dial, listen_on
from supervm_rt.transports.network.held import number_of, still_open
from supervm_rt.transports.network.resolving import Resolver, resolve
from supervm_rt.transports.network.wire import Kind, Request, Status
from supervm_rt.trust.network import LOCALHOST, NetworkGrant, parse_address, parse_name

MOST_REQUESTS = 16
"""Of one plugin at a time; SUPERVM_NET_MAX_REQUESTS."""
MOST_LISTENERS = 8
LONGEST_TIMEOUT = 60.0
"""Seconds."""
PACKETS_AT_ONCE = 64
PAUSE = 0.01
"""Seconds after so many packets: what a flood may cost the host."""
SWEEP_PAUSE = 0.25
"""Seconds between two questions to the kernel which sockets are still open."""
LOOPBACK = tuple(address for text in ("127.0.0.1", "::1") if (address := parse_address(text)) is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one request that asked for something of the network."""

    action: str
    """``connected``, ``accepted``, ``listening``, ``refused``, ``failed`` or ``throttled``."""
    name: str
    """The host name or address that was asked for; for ``accepted`` who came."""
    port: int
    address: str = ""
    """What was dialled."""
    reason: str = ""
    count: int = 1
    """So many requests, where they are reported together."""

    def __str__(self) -> str:
        """One line for a person."""
        if self.action == "throttled":
            return f"{self.count} requests for the network were refused at once: {self.reason}"
        place = f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"
        match self.action:
            case "connected":
                return f"connected to {place}" + (f" ({self.address})" if self.address != self.name else "")
            case "accepted":
                return f"accepted a connection from {place}"
            case "listening":
                return f"listens on {place}"
        return f"{self.action}: {place}: {self.reason}"


class _Refused(Exception):
    """Ends a request with this status; a reason is reported."""

    def __init__(self, status: Status, reason: str = "", action: str = "refused") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.action = action


@dataclass(slots=True)
class _Listener:
    place: socket.socket
    name: str
    port: int
    turn: trio.Lock = field(default_factory=trio.Lock)
    """Held by the one request that waits for the next connection."""


class Broker:
    """One life of one plugin. ``run`` is the task; it ends when the plugin's end is closed, or by being cancelled."""

    def __init__(
        self,
        plugin: str,
        generation: int,
        grant: NetworkGrant,
        *,
        resolver: Resolver,
        lookups: trio.CapacityLimiter,
        report: Callable[[Report], None],
    ) -> None:
        """``lookups``: the plugin's, over all its lives. Raises HostError where there are no descriptors."""
        self._plugin = plugin
        self._generation = generation
        self._grant = grant
        self._resolver = resolver
        self._tell = report
        self._lookups = lookups
        self._allowance = Allowance(rate=grant.operator.rate, burst=2 * grant.operator.rate, clock=trio.current_time)
        self._running: set[int] = set()
        self._held: set[int] = set()
        self._arriving = 0
        """Sockets that are being made."""
        self._swept = -SWEEP_PAUSE
        self._listeners: dict[int, _Listener] = {}
        self._numbers = itertools.count(1)
        self._throttled = 0
        self._throttled_told = trio.current_time() - 1.0
        self._fault = ""
        try:
            self._ours, self.plugin_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise HostError(
                f"{plugin}: there is no socket for its network ({error.strerror})", remedy="raise the limit (ulimit -n)"
            ) from None
        self._ours.setblocking(False)
        self._ours.send(wire.greeting(generation, grant.operator.sockets))

    # ---- the task ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until the end. Raises LifecycleError for what no plugin sends."""
        try:
            async with trio.open_nursery() as nursery:
                await self._serve(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self.close()
        if self._fault:
            raise LifecycleError(
                f"{self._plugin}: it broke its network channel: {self._fault}", remedy="it is not to be trusted; ask its author"
            )

    async def _serve(self, nursery: trio.Nursery) -> None:
        while not self._fault:
            for _ in range(PACKETS_AT_ONCE):
                try:
                    data = self._ours.recv(wire.REQUEST.size + 1)
                except BlockingIOError:
                    break
                except OSError:
                    return
                if not data:
                    return
                try:
                    request = wire.parse_request(data, LONGEST_TIMEOUT)
                except wire.WireBroken as fault:
                    self._fault = str(fault)
                    return
                self._take(request, nursery)
            else:
                await trio.sleep(PAUSE)
                continue
            await trio.lowlevel.wait_readable(self._ours)

    def _take(self, request: Request, nursery: trio.Nursery) -> None:
        if len(self._running) >= MOST_REQUESTS or request.id in self._running:
            self._throttle(request, f"{MOST_REQUESTS} are under way")
        elif self._allowance.take(1) == 0:
            self._throttle(request, f"more than {self._grant.operator.rate} a second")
        elif request.generation != self._generation:
            self._refuse(request, _Refused(Status.STOPPING, f"it is of life {request.generation}, not {self._generation}"))
        else:
            self._running.add(request.id)
            nursery.start_soon(self._attend, request, nursery)

    async def _attend(self, request: Request, nursery: trio.Nursery) -> None:
        try:
            match request.kind:
                case Kind.CONNECT:
                    await self._connect(request)
                case Kind.LISTEN:
                    self._listen(request)
                case Kind.ACCEPT:
                    await self._accept(request)
                case Kind.CLOSE_LISTENER:
                    self._close_listener(request)
        except _Refused as refused:
            self._refuse(request, refused)
        finally:
            self._running.discard(request.id)
        if self._fault:
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """Ends every wait of the plugin for an answer. Sockets that it has stay its own."""
        for listener in self._listeners.values():
            listener.place.close()
        self._listeners.clear()
        self._ours.close()
        self.plugin_end.close()

    # ---- requests ------------------------------------------------------------------------------------------------------------

    async def _connect(self, request: Request) -> None:
        address = parse_address(request.name)
        name = "" if address is not None else parse_name(request.name)
        if name is None or request.port == 0 or not request.timeout:
            raise _Refused(Status.INVALID_ARGUMENT)
        async with self._place():
            end = trio.current_time() + request.timeout
            with trio.move_on_after(request.timeout) as limit:
                found = [address] if address is not None else await self._look_up(name, request.port)
            if limit.cancelled_caught:
                raise _Refused(Status.TIMED_OUT, "its name was not resolved in time", "failed")
            allowed = self._permitted(found, request.port, name)
            try:
                connection, dialled = await dial(allowed, request.port, end - trio.current_time())
            except OSError as error:
                raise self._not_connected(error) from None
            self._hand_over(request, connection, Report("connected", self._shown(request), request.port, str(dialled)))

    async def _look_up(self, name: str, port: int) -> list[Address]:
        """The addresses of a name that may be asked for."""
        why = self._grant.why_not_resolved(name, port)
        if why:
            raise _Refused(Status.NOT_GRANTED, why)
        if name == LOCALHOST:
            return list(LOOPBACK)
        try:
            found = await resolve(self._resolver, name, self._lookups)
        except Exception as error:  # whatever an embedder's resolver raises is no address
            raise _Refused(Status.NOT_FOUND, f"its name does not resolve ({error})", "failed") from None
        if not found:
            raise _Refused(Status.NOT_FOUND, "its name has no address", "failed")
        return found

    def _permitted(self, found: list[Address], port: int, name: str) -> list[Address]:
        reasons = {address: self._grant.why_not_dialled(address, port, name) for address in found}
        allowed = [address for address in found if not reasons[address]]
        if not allowed:
            first = found[0]
            raise _Refused(Status.NOT_GRANTED, f"{first}: {reasons[first]}" if name else reasons[first])
        return allowed

    def _not_connected(self, error: OSError) -> _Refused:
        if isinstance(error, TimeoutError):
            return _Refused(Status.TIMED_OUT, "nobody answered in time", "failed")
        lacks = error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
        return _Refused(Status.NO_MEMORY if lacks else Status.UNREACHABLE, error.strerror or str(error), "failed")

    def _listen(self, request: Request) -> None:
        address = parse_address(request.name)
        if address is None:
            raise _Refused(Status.INVALID_ARGUMENT)
        why = self._grant.why_not_listened(address, request.port)
        if why:
            raise _Refused(Status.NOT_GRANTED, why)
        if len(self._listeners) >= MOST_LISTENERS:
            raise _Refused(Status.QUEUE_FULL, f"it has {MOST_LISTENERS} listeners")
        try:
            place = listen_on(address, request.port)
        except OSError as error:
            raise self._not_connected(error) from None
        number, port = next(self._numbers), place.getsockname()[1]
        self._listeners[number] = _Listener(place, str(address), port)
        self._report(Report("listening", str(address), port, str(address)))
        self._send(wire.answer(request.id, Status.OK, listener=number, port=port))

    async def _accept(self, request: Request) -> None:
        listener = self._listeners.get(request.listener)
        if listener is None:
            raise _Refused(Status.NOT_FOUND)
        async with self._place():
            try:
                with trio.fail_after(float("inf") if request.timeout is None else request.timeout):
                    connection, peer = await self._next_connection(listener, waits=request.timeout != 0)
            except trio.TooSlowError:
                raise _Refused(Status.TIMED_OUT) from None
            except BlockingIOError:
                raise _Refused(Status.WOULD_BLOCK) from None
            except trio.ClosedResourceError:
                raise _Refused(Status.NOT_FOUND) from None
            except OSError as error:
                raise self._not_connected(error) from None
            self._hand_over(request, connection, Report("accepted", peer[0], peer[1], peer[0]))

    async def _next_connection(self, listener: _Listener, *, waits: bool) -> tuple[socket.socket, tuple[str, int]]:
        if not waits:
            return listener.place.accept()
        async with listener.turn:
            while listener.place.fileno() >= 0:
                try:
                    return listener.place.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    await trio.lowlevel.wait_readable(listener.place)
            raise trio.ClosedResourceError

    def _close_listener(self, request: Request) -> None:
        listener = self._listeners.pop(request.listener, None)
        if listener is None:
            raise _Refused(Status.NOT_FOUND)
        trio.lowlevel.notify_closing(listener.place)
        listener.place.close()
        self._send(wire.answer(request.id, Status.OK))

    # ---- sockets of the plugin -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the sockets that the plugin may have at once."""
        if not await self._has_room():
            raise _Refused(Status.QUEUE_FULL, f"it has {len(self._held)} sockets")
        self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def _has_room(self) -> bool:
        most = self._grant.operator.sockets
        now = trio.current_time()
        if len(self._held) + self._arriving >= most and now >= self._swept + SWEEP_PAUSE:
            self._swept = now
            known = frozenset(self._held)
            self._held -= known - await trio.to_thread.run_sync(still_open, known)
        return len(self._held) + self._arriving < most

    def _hand_over(self, request: Request, connection: socket.socket, report: Report) -> None:
        with connection:
            connection.setblocking(not request.nonblocking)
            # Before it is told: whoever sees the answer sees the event.
            self._report(report)
            if self._send(wire.answer(request.id, Status.OK), connection):
                self._held.add(number_of(connection))

    # ---- answers -------------------------------------------------------------------------------------------------------------

    def _send(self, answer: bytes, connection: socket.socket | None = None) -> bool:
        """Whether it was sent. A plugin that leaves its answers lying has broken its channel."""
        try:
            socket.send_fds(self._ours, [answer], [] if connection is None else [connection.fileno()])
        except BlockingIOError:
            self._fault = "it does not read its answers"
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                return False  # the plugin is gone
            return self._send(wire.answer(wire.ANSWER.unpack(answer)[1], Status.NO_MEMORY))
        else:
            return True
        return False

    def _refuse(self, request: Request, refused: _Refused) -> None:
        if refused.reason:
            self._report(Report(refused.action, self._shown(request), request.port, reason=refused.reason))
        self._send(wire.answer(request.id, refused.status))

    def _throttle(self, request: Request, reason: str) -> None:
        """Refuses without an event for each: a flood must not become one of those."""
        self._throttled += 1
        now = trio.current_time()
        if now >= self._throttled_told + 1.0:
            self._report(Report("throttled", "", 0, reason=reason, count=self._throttled))
            self._throttled, self._throttled_told = 0, now
        self._send(wire.answer(request.id, Status.QUEUE_FULL))

    def _shown(self, request: Request) -> str:
        return printable(request.name.encode()) if request.name else f"listener {request.listener}"

    def _report(self, report: Report) -> None:
        self._tell(report)
