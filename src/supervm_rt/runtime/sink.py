"""The one sink that receives every event and decision, and hands each to its receivers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from supervm_rt.model.events import EventKind, HostEvent, Severity
from supervm_rt.model.plugin import Registration

Receiver = Callable[[HostEvent], None]

RECENT_EVENTS = 1_000

_logger = logging.getLogger("supervm_rt")


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Counters since the runtime opened."""

    events: int
    receivers: int
    failed_receivers: int


class EventSink:
    """Hands events to receivers, in order, at once. Used from the Trio thread only.

    A receiver must not wait. One that raises is taken off and the failure logged: no receiver can harm the host.
    ``recent`` keeps the last 1,000 events; older ones are forgotten.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._receivers: list[Receiver] = []
        self._events = 0
        self._failed = 0
        self.recent: deque[HostEvent] = deque(maxlen=RECENT_EVENTS)

    def add(self, receiver: Receiver) -> None:
        """Hands every later event to receiver."""
        self._receivers.append(receiver)

    def remove(self, receiver: Receiver) -> None:
        """Takes a receiver off; nothing happens where it is not there."""
        if receiver in self._receivers:
            self._receivers.remove(receiver)

    def emit(
        self,
        kind: EventKind,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        registration: Registration | None = None,
        plugin: str | None = None,
        chain: str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> None:
        """Stamps and hands on one event. ``registration`` fills in plugin, generation and chain."""
        event = HostEvent(
            time=self._clock(),
            kind=kind,
            severity=severity,
            message=message,
            plugin=registration.plugin if registration else plugin,
            generation=registration.generation if registration else None,
            chain=registration.chain if registration else chain,
            data=data or {},
        )
        self._events += 1
        self.recent.append(event)
        for receiver in tuple(self._receivers):
            try:
                receiver(event)
            except (Exception, SystemExit):
                self._failed += 1
                self.remove(receiver)
                _logger.exception("an event receiver failed and was taken off: %r", receiver)

    def statistics(self) -> SinkStatistics:
        """Counters."""
        return SinkStatistics(events=self._events, receivers=len(self._receivers), failed_receivers=self._failed)
