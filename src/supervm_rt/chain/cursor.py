"""The cursor: where a consumer of events stands, as text that it keeps and gives back. Pure: no store, no clock.

The text is base64 (URL-safe, without padding) of::

    u8 version (1)  8 bytes: id of the store  u16 length of the body, big-endian  body  16 bytes: MAC over all before it

and a body of version 1 is::

    u64 position  u8 step (0: no event yet; 1 new, 2 undo, 3 final)  [u8 index of its chain  block]
    u8 number of chains  each:
        u8 length, name (UTF-8)  u64 after  u64 floor  u8 flags (1: final follows, 2: catching up, 4: its block follows)
        [block: the last final one]  [block: as far as it has caught up]
    block: u8 length, id  u64 height

The MAC is BLAKE2b, keyed with a key that the store keeps, and so is the store's id. One position has one text: other texts that
base64 would decode to the same bytes are refused. A released version stays readable for ever (``tests/chain/cursors``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass
from typing import Final

from supervm_rt.errors import CursorError, CursorForged, CursorMalformed, CursorOfAnotherStore, CursorTooNew
from supervm_rt.model.chain import BlockRef, Step

VERSION: Final = 1
KEY_BYTES: Final = 32
MAX_CHAINS: Final = 64
"""Of one cursor, and so of one subscription."""

MAX_NAME_BYTES: Final = 255
"""Of a chain's name, in UTF-8."""

_MAC_BYTES: Final = 16
_STORE_BYTES: Final = 8
_HEAD: Final = struct.Struct(">B8sH")
_NUMBER: Final = struct.Struct(">Q")
_STEPS: Final = {Step.NEW: 1, Step.UNDO: 2, Step.FINAL: 3}
_STEP_OF: Final = {code: step for step, code in _STEPS.items()}
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{1,65536}", re.ASCII)
_HAS_FINAL, _CATCHING_UP, _HAS_REACHED = 1, 2, 4

_AGAIN: Final = "give the whole cursor as it was received, or start without one"


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """Where a consumer stands in one chain."""

    chain: str
    after: int = 0
    """It follows the chain's log from the later of this sequence and the cursor's position on."""
    floor: int = 0
    """Blocks below this height are not told: the height that the consumer started from."""
    final: BlockRef | None = None
    """The last block that it knows to be final."""
    catching_up: bool = False
    """It is being told blocks whose events were deleted, before it follows the log."""
    reached: BlockRef | None = None
    """The last of them that it was told."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A consumer's place, after one event or before the first."""

    position: int
    """Sequence of the last event of the store's log that was passed."""
    chains: tuple[ChainPlace, ...]
    step: Step | None = None
    """Of the last event; None: none was told yet."""
    chain: int = 0
    """Whose event it was: an index of ``chains``."""
    block: BlockRef | None = None
    """Its block."""


class Sealer:
    """Makes the cursors of one store and reads them back."""

    def __init__(self, key: bytes) -> None:
        """``key``: the store's own, KEY_BYTES long."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._store = hashlib.blake2b(key=key, digest_size=_STORE_BYTES, person=b"supervm store").digest()

    def seal(self, cursor: Cursor) -> str:
        """The cursor as text."""
        body = _encode(cursor)
        data = _HEAD.pack(VERSION, self._store, len(body)) + body
        return base64.urlsafe_b64encode(data + self._mac(data)).rstrip(b"=").decode("ascii")

    def open(self, text: str) -> Cursor:
        """Reads a cursor. Raises CursorMalformed, CursorTooNew, CursorOfAnotherStore or CursorForged."""
        data = _bytes_of(text)
        if data[0] < 1 or (data[0] > VERSION and len(data) < _HEAD.size + _MAC_BYTES):  # shorter than one of any version
            raise CursorMalformed("the text is not a cursor", remedy=_AGAIN)
        if data[0] > VERSION:
            raise CursorTooNew(
                f"the cursor has version {data[0]}; this supervm-rt reads versions up to {VERSION}",
                remedy="use the newer supervm-rt that gave it, or start without one",
            )
        if len(data) < _HEAD.size:
            raise CursorMalformed("the cursor is cut short", remedy=_AGAIN)
        _, store, length = _HEAD.unpack_from(data)
        whole = _HEAD.size + length + _MAC_BYTES
        if store != self._store:
            raise CursorOfAnotherStore("the cursor was given by another store", remedy="name that store, or start without one")
        if len(data) != whole:
            what = "cut short" if len(data) < whole else "longer than it says"
            raise CursorMalformed(f"the cursor is {what}", remedy=_AGAIN)
        if not hmac.compare_digest(self._mac(data[:-_MAC_BYTES]), data[-_MAC_BYTES:]):
            raise CursorForged("the cursor is not as the store gave it", remedy=_AGAIN)
        try:
            return _Reader(data[_HEAD.size : -_MAC_BYTES]).cursor()
        except (IndexError, KeyError, ValueError, struct.error) as error:
            raise CursorError(f"the cursor is genuine and cannot be read ({error!r})", remedy="please report it") from error

    def _mac(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=_MAC_BYTES, person=b"supervm cursor").digest()


def _bytes_of(text: str) -> bytes:
    if not _TEXT.fullmatch(text):
        raise CursorMalformed("the text is not a cursor: it is empty or has characters that no cursor has", remedy=_AGAIN)
    if len(text) % 4 == 1:
        raise CursorMalformed("the cursor is cut short", remedy=_AGAIN)
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii") != text:
        raise CursorMalformed("the cursor is cut short or its last character was changed", remedy=_AGAIN)
    return data


def _encode(cursor: Cursor) -> bytes:
    if not 1 <= len(cursor.chains) <= MAX_CHAINS:
        raise ValueError(f"a cursor is of 1 to {MAX_CHAINS} chains, not {len(cursor.chains)}")
    out = bytearray(_NUMBER.pack(cursor.position))
    if cursor.step is None or cursor.block is None:
        out.append(0)
    else:
        out += bytes((_STEPS[cursor.step], cursor.chain))
        out += _block(cursor.block)
    out.append(len(cursor.chains))
    for place in cursor.chains:
        name = place.chain.encode()
        out.append(len(name))
        out += name
        out += _NUMBER.pack(place.after) + _NUMBER.pack(place.floor)
        out.append(
            (_HAS_FINAL if place.final else 0)
            | (_CATCHING_UP if place.catching_up else 0)
            | (_HAS_REACHED if place.reached else 0)
        )
        for block in (place.final, place.reached):
            if block is not None:
                out += _block(block)
    return bytes(out)


def _block(block: BlockRef) -> bytes:
    return bytes((len(block.hash),)) + block.hash + _NUMBER.pack(block.height)


class _Reader:
    """Takes a body apart. Its MAC was right, so what is wrong in it was never written by a store."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def cursor(self) -> Cursor:
        position = self._number()
        step, chain, block = self._byte(), 0, None
        if step:
            chain = self._byte()
            block = self._block()
        places = tuple(self._place() for _ in range(self._byte()))
        if self._at != len(self._body) or not places or chain >= len(places):
            raise ValueError("it does not end where it should")
        return Cursor(position, places, _STEP_OF[step] if step else None, chain, block)

    def _place(self) -> ChainPlace:
        name = self._take(self._byte()).decode()
        after, floor, flags = self._number(), self._number(), self._byte()
        final = self._block() if flags & _HAS_FINAL else None
        reached = self._block() if flags & _HAS_REACHED else None
        return ChainPlace(name, after, floor, final, bool(flags & _CATCHING_UP), reached)

    def _block(self) -> BlockRef:
        hash_ = self._take(self._byte())
        return BlockRef(hash_, self._number())

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self) -> int:
        value: int = _NUMBER.unpack(self._take(8))[0]
        return value

    def _take(self, count: int) -> bytes:
        taken = self._body[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError("it ends too early")
        self._at += count
        return taken
