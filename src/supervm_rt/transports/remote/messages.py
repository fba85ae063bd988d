"""gRPC messages out of a stream's bytes, as they come, with a bound that is checked before a message's body is there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from supervm_rt.transports.remote._frames import Body, split

PREFIX_BYTES = 5

Buffer = bytes | memoryview


class MessageBuffer:
    """In the place of grpclib's buffer of one stream. Used from the loop's thread, by one reader.

    Whole messages count against the HTTP/2 window until they are taken. Those that are not whole do not, up to ``limit``: a
    message may be larger than the window.
    """

    __slots__ = (
        "_account",
        "_acknowledge",
        "_answer",
        "_body",
        "_limit",
        "_messages",
        "_owed",
        "_prefix",
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
        self._messages: deque[bytes] = deque()
        self._prefix = b""
        """Of a message that has begun, where not even that is whole."""
        self._body: Body | None = None
        """Of a message that has begun, otherwise."""
        self._owed = 0
        self._answer: bytes | None = None
        """What ``read`` gives next."""
        self._waiter: asyncio.Future[None] | None = None
        self.begun = False
        """A message has begun, and is not whole."""
        self.ended = False
        self.failure: GRPCError | None = None

    # ---- what comes in -------------------------------------------------------------------------------------------------------

    def add(self, data: Buffer, ack_size: int) -> None:
        """Takes what came, all of which is copied."""
        self._owed += ack_size
        if self.failure is not None:
            self.settle()
            return
        self._account(len(data))
        if self._body is not None:
            taken = self._body.take(data)
            if not self._body.whole:
                if not self._messages:
                    self.settle()
                return
            self._messages.append(self._body.message())
            self._body = None
            data = memoryview(data)[taken:]
        if self._prefix:
            data = self._prefix + data
            self._prefix = b""
        self._split(data)
        if self._messages:
            self._wake()
        else:
            self.settle()

    def _split(self, data: Buffer) -> None:
        whole: list[bytes] = []
        place, fault = split(data, self._limit, whole)
        self._messages.extend(whole)
        rest = memoryview(data)[place:]
        self.begun = len(rest) > 0
        if fault < 0:
            self._fail(len(rest), Status.UNIMPLEMENTED, "compressed messages are not supported: send them uncompressed")
        elif fault:
            self._fail(len(rest), Status.RESOURCE_EXHAUSTED, f"a message of {fault} bytes is above the limit of {self._limit}")
        elif len(rest) < PREFIX_BYTES:
            self._prefix = bytes(rest)
        else:
            self._body = Body(int.from_bytes(rest[1:PREFIX_BYTES]))
            self._body.take(rest[PREFIX_BYTES:])

    def _fail(self, unread: int, status: Status, why: str) -> None:
        self._account(-unread)
        self.fail(GRPCError(status, why))

    @property
    def _have(self) -> int:
        """Bytes that are held of the message that has begun."""
        return len(self._prefix) if self._body is None else PREFIX_BYTES + len(self._body)

    def _drop(self) -> None:
        self._account(-self._have)
        self._prefix = b""
        self._body = None
        self.begun = False

    def eof(self) -> None:
        """The peer sends no more."""
        self.ended = True
        if self.begun and self.failure is None:
            self.fail(GRPCError(Status.INVALID_ARGUMENT, "the stream ended inside a message"))
        self._wake()

    def fail(self, failure: GRPCError) -> None:
        """What was whole can still be taken; then this is raised."""
        self.failure = failure
        self._drop()
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
        self._account(-sum(map(len, self._messages)) - PREFIX_BYTES * len(self._messages))
        self._messages.clear()
        self._drop()
        return owed

    @property
    def starves(self) -> bool:
        """A message has begun, and only the peer can go on."""
        return self.begun and not self._messages

    # ---- what is taken -------------------------------------------------------------------------------------------------------

    async def take(self) -> list[bytes]:
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
        if self._answer is not None:
            answer, self._answer = self._answer, None
            return answer
        await self._wait()
        if not self._messages:
            return b""
        message = self._messages.popleft()
        self._account(-len(message) - PREFIX_BYTES)
        if self._messages:  # what is held stays owed
            back = min(self._owed, len(message) + PREFIX_BYTES)
            self._owed -= back
            self._acknowledge(back)
        else:
            self.settle()
        if message:
            self._answer = message
        return b"\0" + len(message).to_bytes(4)
