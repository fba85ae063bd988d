"""The host's side of one plugin, for tests: the real binding, driven without the runtime around it."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from supervm_rt import _abi

ERROR = 4
WARNING = 3
INFO = 2

DEADLINE = 20.0
"""Seconds after which a test gives a plugin up."""

CAPABILITIES = frozenset({"block_stream"})


@dataclass
class Published:
    """One block as it came out of the ring."""

    payload: bytes
    position: bytes
    height: int | None


@dataclass
class Metric:
    """One sample."""

    name: str
    value: float


class InitFailed(Exception):
    """plugin_init answered something else than 0."""

    def __init__(self, code: int, log: list[tuple[int, str]]) -> None:
        super().__init__(code, log)
        self.code = code
        self.log = log


@dataclass
class PluginHost:
    """A loaded plugin. Use as a context manager: leaving stops, unloads, and fails if anything stays behind."""

    library: Path
    configuration: dict[str, object]
    position: bytes | None = None
    capabilities: frozenset[str] = CAPABILITIES
    ring_bytes: int = 1 << 24
    raw_configuration: bytes | None = None
    heartbeat_interval_ms: int = 10_000
    blocks: list[Published] = field(default_factory=list)
    log: list[tuple[int, str]] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    ends: int = 0
    """How often the plugin said end of input."""
    start_code: int = 0
    stopped: bool = False

    def __enter__(self) -> PluginHost:
        sealed = _abi.SealedLibrary(self.library.read_bytes())
        self.native = _abi.NativePlugin(
            sealed, ring_bytes=self.ring_bytes, generation=1, heartbeat_interval_ms=self.heartbeat_interval_ms
        )
        sealed.close()
        self.manifest: dict[str, object] = json.loads(self.native.manifest_json())
        configuration = json.dumps(self.configuration).encode() if self.raw_configuration is None else self.raw_configuration
        self.native.grant(capabilities=self.capabilities, configuration=configuration, position=self.position)
        code = self.native.init()
        if code != 0:
            self.drain()
            self.native.begin_stop()
            self.native.close()
            raise InitFailed(code, self.log)
        self.start_code = self.native.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self.native.close()
        assert self.native.closed

    def stop(self) -> None:
        """Stops the plugin; what it said until then is drained. A second time does nothing."""
        if self.stopped:
            return
        self.stopped = True
        self.native.begin_stop()
        assert self.native.stop() == 0
        # A thread that was joined may still be listed for a moment.
        deadline = time.monotonic() + DEADLINE
        while self.native.threads():
            assert time.monotonic() < deadline, "plugin_stop left threads behind"
            time.sleep(0.001)
        self.drain()

    def drain(self) -> bool:
        """Takes what is there. False: nothing was."""
        frames = self.native.read(1000)
        for frame in frames:
            if frame.kind == _abi.KIND_BLOCK:
                self.blocks.append(Published(bytes(frame), frame.position, frame.height))
            elif frame.kind == _abi.KIND_END_OF_INPUT:
                self.ends += 1
        messages = self.native.read_messages(1000)
        for message in messages:
            if message.kind == _abi.MESSAGE_LOG:
                self.log.append((message.level, message.text))
            elif message.kind == _abi.MESSAGE_METRIC:
                self.metrics.append(Metric(message.text, message.value))
        return bool(frames or messages)

    def wait_for_more(self, deadline: float) -> None:
        """Sleeps until the plugin says something."""
        if not self.native.prepare_wait():
            return
        try:
            left = deadline - time.monotonic()
            readable = select.select([self.native.event_fd], [], [], max(left, 0))[0]
            assert readable, f"the plugin said nothing more; {len(self.blocks)} blocks, {self.ends} ends, log {self.log}"
        finally:
            self.native.finish_wait()

    def until_idle(self, ends: int = 1) -> list[bytes]:
        """Reads until the plugin has said end of input so often. Gives the payloads of all blocks."""
        return self._until(lambda: self.ends >= ends)

    def until_blocks(self, count: int) -> list[bytes]:
        """Reads until there are so many blocks and the plugin is idle after them."""
        return self._until(lambda: len(self.blocks) >= count)

    def until_log(self, level: int, part: str) -> None:
        """Reads until a line holds this text."""
        self._until(lambda: any(part in text for text in self.lines(level)))

    def until_shutdown_request(self) -> int:
        """Reads until the plugin asks to be stopped. Gives its reason."""
        self._until(lambda: self.native.shutdown_request is not None)
        assert self.native.shutdown_request is not None
        return self.native.shutdown_request

    def _until(self, satisfied: Callable[[], bool]) -> list[bytes]:
        deadline = time.monotonic() + DEADLINE
        while True:
            taken = self.drain()
            if satisfied():
                return self.payloads()
            if not taken:
                self.wait_for_more(deadline)

    def payloads(self) -> list[bytes]:
        """The blocks so far."""
        return [block.payload for block in self.blocks]

    def lines(self, level: int) -> list[str]:
        """What the plugin logged at this level."""
        return [text for said, text in self.log if said == level]
