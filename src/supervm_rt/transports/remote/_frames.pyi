from collections.abc import Sequence
from typing import final

from supervm_rt._abi import Frame
from supervm_rt.transports.remote.introduction import Event

LARGE_MESSAGE: int
"""From this length on a message is read without the GIL."""

def hear(
    data: bytes | memoryview, *, generation: int, chain: bytes | None = None
) -> tuple[list[Frame], tuple[int, bytes] | None]:
    """Reads one BlockMessage that a plugin sent.

    chain: what the plugin may name as its chain; None: anything. Returns (frames, None), or ([], (number, content)): the number
    of the body's field in BlockMessage, and the encoded submessage, which is sound as an encoding.

    A payload that is large beside the whole message is a view of data, which then lives as long as the frame; smaller ones are
    copied. A message of 4 MiB or more is read without the GIL, for a thread of its own. Raises MessageRefused, and TypeError
    where data is no contiguous buffer that nobody can write to.
    """

def payload_bytes(frames: list[Frame]) -> int:
    """Payload bytes of frames, all together."""

def first_frames(frames: list[Frame], most: int, size: int) -> int:
    """How many frames come before there are so many, or the one that reaches so many payload bytes, that one included."""

def tell(
    events: Sequence[Event],
    first: int,
    *,
    batch: int,
    most: int,
    since: float = 0,
    json: Sequence[str | None] | None = None,
    ir: Sequence[bytes | None] | None = None,
) -> tuple[list[bytes | memoryview], int, int]:
    """Writes events of a feed from the place first on as gRPC messages of BlockMessage, each with its length before.

    batch: so many events go into one message; up to 1: each is one of its own. most: about so many bytes; the event that reaches
    it is the last. since: events of blocks before that second are left out. json, ir: of each event its block as a text, or
    as an encoded BlockIR; None: without.

    Returns (parts, size, next): what is to be sent, one behind the other, how many bytes that are, and the place of the first
    event that was not looked at. Large payloads are parts of their own, and not copied. Raises TypeError, OverflowError.
    """

def split(data: bytes | memoryview, limit: int, into: list[bytes]) -> tuple[int, int]:
    """Appends the whole gRPC messages at the begin of data, as bytes. Returns (place, fault): where what is left begins, and
    why it stopped there: 0, no whole message is left; -1, a compressed one; else the length of one above the limit."""

@final
class Body:
    """A message of which not all has come. What comes is copied once, into the place from which it is read later; it takes no
    more memory than 64 KiB, or eight times what has come."""

    def __init__(self, length: int) -> None:
        """length: of the whole message, above 0."""

    def take(self, data: bytes | memoryview) -> int:
        """Copies what belongs to this message; says how many bytes that were."""

    def __len__(self) -> int: ...
    @property
    def whole(self) -> bool:
        """All of it has come."""

    def message(self) -> bytes:
        """The whole message, once."""
