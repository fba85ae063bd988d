"""Types of the extension that binds to the C ABI (design clause D2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

SLOT_COUNT: int
"""How many native plugins one process can hold at once, abandoned ones included."""

KIND_BLOCK: int
KIND_REORG: int
KIND_FINALIZED: int
KIND_END_OF_INPUT: int

MESSAGE_LOG: int
MESSAGE_METRIC: int
MESSAGE_TRANSACTION: int

STATUS_NAMES: dict[int, str]
"""Each status code of supervm/status.h by number: {-6: "STOPPING", ...}."""

@final
class SealedLibrary:
    """The bytes of one library in a sealed memfd: what was hashed is what is loaded."""

    def __init__(self, data: bytes) -> None:
        """Copies data into a new sealed memfd. Raises OSError."""
    sha256: bytes
    """SHA-256 over the memfd's own content, 32 bytes."""
    size: int
    fd: int
    """-1 once closed."""
    def close(self) -> None:
        """Closes the memfd. A library that was loaded from it stays."""
    def __enter__(self) -> SealedLibrary: ...
    def __exit__(self, *exception: object) -> None: ...

@final
class Frame:
    """One thing that a plugin said, in the order in which it said it. A read-only buffer over the payload.

    Exporting the buffer pins the frame's place in the ring until the export is released. A frame that is merely kept is copied
    out when the ring needs its place. Frames may outlive their plugin.
    """

    kind: int
    height: int | None
    final_height: int | None
    time: int | None
    """Nanoseconds since the epoch."""
    weight: int | None
    hash: bytes
    parent: bytes
    position: bytes
    to_height: int | None
    """KIND_REORG: the last height that stays (height holds from_height)."""
    orphans: list[bytes]
    """KIND_REORG: ids that leave, tip first. Empty for other kinds."""
    generation: int
    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@dataclass(frozen=True)
class Message:
    """One record of the side ring: a log line, a metric sample or a transaction."""

    kind: int
    level: int
    text: str
    """Log text, metric name, or the transaction's chain. Undecodable bytes are replaced, control characters escaped."""
    value: float
    data: bytes
    """The transaction's bytes."""

@dataclass(frozen=True)
class RingStatistics:
    """Counters of one plugin's rings, since load."""

    capacity: int
    """Bytes of the block ring."""
    used: int
    """Bytes between the tail and the head."""
    pinned_frames: int
    """Frames that were read and whose place is not free yet."""
    frames: int
    bytes: int
    """Payload bytes read."""
    waits: int
    """How often a publisher had to wait for room."""
    wakeups: int
    """How often the host was woken."""
    copied_out: int
    """Frames copied out because the ring needed their place."""
    messages: int
    dropped_messages: int
    """Log lines and metric samples that were dropped because the side ring was full."""

@final
class NativePlugin:
    """A plugin library loaded into one slot of this process.

    Construction loads (dlopen) and so runs the library's constructors; construction, manifest_json, init, start, stop and close
    run foreign code without the GIL and may never return: call them on a thread that may be lost. Each of grant, init, start and
    stop is called at most once, in this order (stop also while start runs); LifecycleError otherwise.
    """

    def __init__(
        self,
        library: SealedLibrary,
        *,
        ring_bytes: int = ...,
        side_ring_bytes: int = ...,
        generation: int = ...,
        heartbeat_interval_ms: int = ...,
    ) -> None:
        """Takes a slot and loads. Ring sizes are powers of two of 64 KiB or more. A sealed library can be loaded once at a time.
        Raises LoadError (missing export, not loadable, not a new mapping), SlotsExhausted, HostError or ValueError."""
    slot: int
    generation: int
    event_fd: int
    """Becomes readable when the plugin said something while the host slept; see prepare_wait."""
    max_payload: int

    def manifest_json(self) -> bytes:
        """What plugin_get_manifest_json returned, freed again by plugin_free_string. Raises LoadError for NULL or above 1 MiB."""
    def grant(self, *, capabilities: frozenset[str], configuration: bytes, position: bytes | None) -> None:
        """Says what host_get_extension and the four callbacks may answer from now on. To be called before init, once."""
    def attach_network(self, descriptor: int) -> None: ...
    def set_route(self, routed: bool) -> None:
        """Whether the host has a way for transactions of the plugin; without one they are answered NO_ROUTE, as at first."""
    def init(self) -> int:
        """What plugin_init answered."""
    def start(self) -> int:
        """What plugin_start answered."""
    def stop(self) -> int:
        """Does begin_stop, and answers what plugin_stop answered. Logs and metrics are taken until it has returned."""
    def end_calls(self) -> None:
        """Answers nothing any more, log lines and metrics included: for a plugin whose plugin_stop is not called."""
    def begin_stop(self) -> None:
        """Ends every wait of the plugin inside the host, now and from now on, with SUPERVM_STOPPING."""
    def read(self, max_frames: int, max_bytes: int = ...) -> list[Frame]:
        """Takes the next frames, at most max_frames, and stops after the first that reaches max_bytes of payload. Never waits.
        Raises RingCorrupt."""
    def read_messages(self, max_messages: int) -> list[Message]:
        """Takes the next messages, at most max_messages. Never waits. Raises RingCorrupt."""
    def prepare_wait(self) -> bool:
        """Announces that the host is about to sleep on event_fd. False: something is already there, do not sleep."""
    def finish_wait(self) -> None:
        """Takes the announcement back and empties event_fd. Call after every prepare_wait that answered True."""
    shutdown_request: int | None
    """The reason code of host_request_shutdown, None until it was called."""
    heartbeat_asked: bool
    """Whether the plugin asked for supervm.heartbeat/1."""
    last_sign_of_life: int
    """CLOCK_MONOTONIC nanoseconds of the last beat, publish or start; now, while a thread waits inside the sink."""
    def threads(self) -> list[int]:
        """Kernel ids of living threads that the plugin started.

        Whatever thread runs code of the plugin bears a name of this load's own meanwhile, and a new thread inherits its maker's
        name: every thread of that name belongs to the plugin. One that renamed itself is told by exclusion: it is younger than
        the load, and neither Python nor another plugin's name accounts for it. If no other plugin is loaded it is this one's;
        otherwise its stack decides, and one whose stack cannot be read counts, since unmapping its code would end the process.
        """
    def close(self) -> None:
        """Unmaps the library and gives the slot back. Waits half a second for threads that are about to end, and five for release
        callbacks.

        Frames that still live are copied out first; a frame whose buffer is exported keeps the ring's mapping, not the library.
        Raises LifecycleError where a call has not returned, threads remain, a reserve was never committed, a buffer in the
        plugin's own memory (publish_release) is exported, a release callback hangs, or the library did not leave the process:
        then the plugin counts as abandoned.
        """
    def abandon(self) -> None:
        """Gives the plugin up: slot and mapping stay for the life of the process."""
    closed: bool
    def statistics(self) -> RingStatistics:
        """The counters; those at its end once it is closed."""

@final
class SharedChannel:
    """The host's end of the rings of a plugin that runs in another process, which may write anything into them at any time.

    Whatever it writes, reading gives frames that are sound in themselves or raises RingCorrupt; it never reads out of bounds.
    """

    def __init__(self, who: str, *, ring_bytes: int = ..., side_ring_bytes: int = ..., generation: int = ...) -> None:
        """who: names the plugin in errors. Raises ValueError for sizes that cannot be, HostError, OSError."""
    event_fd: int
    """Becomes readable when the plugin said something while the host slept; see prepare_wait."""
    descriptors: tuple[int, int, int, int, int]
    """What the child needs: the event, then the plugin's and the host's words of the block ring and of the side ring."""
    def close_descriptors(self) -> None:
        """Closes the rings' descriptors: the child has its own."""
    def set_route(self, routed: bool) -> None:
        """Whether the host has a way for transactions of the plugin; without one they are answered NO_ROUTE, as at first."""
    def read(self, max_frames: int, max_bytes: int = ...) -> list[Frame]:
        """Takes the next frames, at most max_frames, and stops after the first that reaches max_bytes of payload. Never waits.
        Raises RingCorrupt."""
    def read_messages(self, max_messages: int) -> list[Message]:
        """Takes the next messages, at most max_messages. Never waits. Raises RingCorrupt."""
    def prepare_wait(self) -> bool:
        """Announces that the host is about to sleep on event_fd. False: something seems to be there, do not sleep."""
    def finish_wait(self) -> None:
        """Takes the announcement back and empties event_fd. Call after every prepare_wait that answered True."""
    def begin_stop(self) -> None:
        """Ends every wait of the plugin inside the sink, now and from now on, with SUPERVM_STOPPING."""
    shutdown_request: int | None
    """The reason code of host_request_shutdown, None until it was called."""
    heartbeat_asked: bool
    """Whether the plugin asked for supervm.heartbeat/1."""
    last_sign_of_life: int
    """CLOCK_MONOTONIC nanoseconds of the last beat, publish or start, as the plugin claims; it can lie."""
    def statistics(self) -> RingStatistics:
        """Counters; those at the end once it is closed. Waits, wakeups and drops are the plugin's claims."""
    closed: bool
    def close(self) -> None:
        """Gives the rings up. Frames that still live are copied out first."""

def printable(text: bytes, /) -> str:
    """Text of a plugin as one that can go to a terminal or a log: no control characters, nothing undecodable."""

def slots_in_use() -> int: ...
