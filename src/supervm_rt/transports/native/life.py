"""What a life of a native plugin is, wherever its code runs: the order of its calls, and what is said where it goes wrong."""

from __future__ import annotations

import socket
import time

from supervm_rt._abi import SealedLibrary
from supervm_rt.errors import HostError, LifecycleError
from supervm_rt.model.plugin import Deadlines
from supervm_rt.transports.interface import Received

DEFAULT_HEARTBEAT = 30.0
"""Seconds between two beats, told to a plugin that asks for the heartbeat and whose manifest names none."""


class NativeLife:
    """The part of PluginTransport that is the same in process and in a child."""

    def __init__(
        self,
        library: SealedLibrary,
        *,
        name: str,
        generation: int,
        ring_bytes: int,
        heartbeat: float | None,
        deadlines: Deadlines,
        network: socket.socket | None = None,
    ) -> None:
        """``library`` is closed by the transport. ``heartbeat``: seconds, from the manifest.

        ``network``: the plugin's end of a Broker, closed once the plugin has it.
        """
        self._library = library
        self._name = name
        self._generation = generation
        self._ring_bytes = ring_bytes
        self._heartbeat = heartbeat
        self._deadlines = deadlines
        self._network = network
        self._start_begun = 0.0
        self._next = "load"
        """The one call of load, grant, init and start that may come next; none of them where it is empty."""
        self._over = False
        """It was stopped, unloaded or given up."""
        self._shutdown_told = False

    def _take(self, call: str) -> None:
        """Takes the call that is next, so that none is made twice. Raises LifecycleError for any other, and changes nothing."""
        if call != self._next or self._over:
            allowed = f"{self._next} is next" if self._next and not self._over else "nothing can be begun any more"
            raise LifecycleError(
                f"{self._name}: {call} was called out of order ({allowed})", remedy="load, grant, init, start, stop"
            )
        self._next = ""

    def _take_stop(self) -> None:
        """Nothing can be begun from here on. Raises LifecycleError where that was so before."""
        if self._over:
            raise LifecycleError(f"{self._name}: stop was called out of order (it has ended)", remedy="stop once, before unload")
        self._over = True

    def _check(self, call: str, code: int) -> None:
        """Raises LifecycleError for what is no success."""
        if code != 0:
            raise LifecycleError(
                f"{self._name}: {call} answered {code}", remedy="see the plugin's log lines above and its documentation"
            )

    def _no_room(self, error: Exception) -> HostError:
        return HostError(
            f"{self._name}: there is no room for its ring of {self._ring_bytes} bytes ({str(error) or 'no memory'})",
            remedy="set a smaller ring, or raise the limits of this process",
        )

    def _news_of_shutdown(self, asked: int | None) -> int | None:
        """The reason of a request for shutdown, the first time."""
        if self._shutdown_told or asked is None:
            return None
        self._shutdown_told = True
        return asked

    def _silence_since(self, last: int, *, asked: bool) -> float | None:
        """Seconds since ``last`` (ns, monotonic), for a plugin that ``asked`` for the heartbeat or whose manifest sets one."""
        if self._heartbeat is None and not asked:
            return None
        return max(time.monotonic_ns() - last, 0) / 1e9

    @property
    def longest_silence(self) -> float:
        """Seconds of silence that are allowed."""
        return self._heartbeat if self._heartbeat is not None else DEFAULT_HEARTBEAT

    def gather(self, received: Received) -> Received:
        """All that a commit may hold is read at once."""
        return received

    def committed(self, position: bytes) -> None:
        """Nothing to tell: the plugin is given its position when it is started."""
