"""gRPC messages out of a stream's bytes, as they come, with a bound that is checked before a message's body is there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from grpclib.const import Status
from grpclib.exceptions import GRPCError

PREFIX_BYTES = 5
_VIEWED_BYTES = 16 << 10
"""From this length on a message is a view of what was received, and not copied out of it."""
_VIEW_SHARE = 4
"""A view keeps all of what was received alive, so a message has to be at least this share of it."""
_CRUMB_BYTES = 512
"""Smaller pieces of a message are put together: each would be an object of its own, many times as large as its bytes."""

Buffer = bytes | memoryview


class MessageBuffer:
    """In the place of grpclib's buffer of one stream. Used from the loop's thread, by one reader.

    Whole messages count against the HTTP/2 window until they are taken. Those that are not whole do not, up to ``limit``: a
    message may be larger than the window.
    """

    __slots__ = (
        "_account",
        "_acknowledge",
        "_body",
        "_have",
        "_limit",
        "_messages",
        "_need",
        "_owed",
        "_parts",
        "_waiter",
        "begun",
        "ended",
        "failure",
    )

    def __init__(self, acknowledge: Callable[[int], None], limit: int, account: Callable[[int], None]) -> None:
        """``acknowledge`` gives bytes back to the window; ``account`` hears how many more (or fewer) are held here."""
        self._acknowledge = acknowledge
        self._account = account
        self._limit = limit
        self._messages: deque[Buffer] = deque()
        self._parts: list[bytes | bytearray] = []
        self._have = 0
        self._need = 0
        self._owed = 0
        self._body: Buffer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.begun = False
        """A message has begun, and is not whole."""
        self.ended = False
        self.failure: GRPCError | None = None

    # ---- what comes in -------------------------------------------------------------------------------------------------------

    def add(self, data: bytes, ack_size: int) -> None:
        """Takes what one DATA frame brought."""
        self._owed += ack_size
        if self.failure is not None:
            self.settle()
            return
        self._account(len(data))
        if self._need:
            last = self._parts[-1]
            if len(data) >= _CRUMB_BYTES:
                self._parts.append(data)
            elif isinstance(last, bytearray):
                last += data
            else:
                self._parts.append(bytearray(data))
            self._have += len(data)
            if self._have < self._need:
                if not self._messages:
                    self.settle()
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = self._need = 0
        self._split(data)
        if self._messages:
            self._wake()
        else:
            self.settle()

    def _split(self, data: bytes) -> None:
        place, end = 0, len(data)
        while end - place >= PREFIX_BYTES:
            length = int.from_bytes(data[place + 1 : place + PREFIX_BYTES])
            if data[place]:
                self.fail(GRPCError(Status.UNIMPLEMENTED, "compressed messages are not supported: send them uncompressed"))
                return
            if length > self._limit:
                self.fail(
                    GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes is above the limit of {self._limit}")
                )
                return
            begin = place + PREFIX_BYTES
            place = begin + length
            if place > end:
                self._keep(data[begin - PREFIX_BYTES :], PREFIX_BYTES + length)
                return
            viewed = length >= max(_VIEWED_BYTES, end // _VIEW_SHARE)
            self._messages.append(memoryview(data)[begin:place] if viewed else data[begin:place])
        if place < end:
            self._keep(data[place:], PREFIX_BYTES)
        else:
            self.begun = False

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts.append(rest)
        self._have, self._need = len(rest), need
        self.begun = True

    def eof(self) -> None:
        """The peer sends no more."""
        self.ended = True
        if self.begun and self.failure is None:
            self.fail(GRPCError(Status.INVALID_ARGUMENT, "the stream ended inside a message"))
        self._wake()

    def fail(self, failure: GRPCError) -> None:
        """What was whole can still be taken; then this is raised."""
        self.failure = failure
        self._account(-self._have)
        self._parts.clear()
        self._have = self._need = 0
        self.begun = False
        self.settle()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def settle(self) -> None:
        """Gives all that was received back to the window."""
        owed, self._owed = self._owed, 0
        if owed:
            self._acknowledge(owed)

    def unacked_size(self) -> int:
        """What a stream that ends has to give back."""
        owed, self._owed = self._owed, 0
        self._account(-self._have - sum(map(len, self._messages)) - PREFIX_BYTES * len(self._messages))
        self._messages.clear()
        self._parts.clear()
        self._have = self._need = 0
        return owed

    @property
    def starves(self) -> bool:
        """A message has begun, and only the peer can go on."""
        return self.begun and not self._messages

    # ---- what is taken -------------------------------------------------------------------------------------------------------

    async def take(self) -> list[Buffer]:
        """All messages that are there, and at least one: waits for it. None: the peer sends no more. Raises GRPCError."""
        await self._wait()
        taken = list(self._messages)
        self._messages.clear()
        if taken:
            self._account(-sum(map(len, taken)) - PREFIX_BYTES * len(taken))
            self.settle()
        return taken

    async def _wait(self) -> None:
        while not self._messages:
            if self.failure is not None:
                raise self.failure
            if self.ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def read(self, size: int) -> bytes:
        """For grpclib, which asks for the prefix of a message and then for its body."""
        if size == 0:
            return b""
        if self._body is not None:
            body, self._body = self._body, None
            return bytes(body)
        await self._wait()
        if not self._messages:
            return b""
        message = self._messages.popleft()
        self._account(-len(message) - PREFIX_BYTES)
        self.settle()
        if len(message):
            self._body = message
        return b"\0" + len(message).to_bytes(4)
