"""What a chain's translator is: raw bytes in, verified identity and IR out, nothing else consulted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from supervm_rt.model.chain import ForkMode, Reason


class BlockClaims(Protocol):
    """What a frame says of a block beside its bytes. Claims are compared with the bytes, never believed (see each translator)."""

    @property
    def hash(self) -> bytes:
        """Claimed id in display order; empty where the plugin leaves it to the host."""

    @property
    def parent(self) -> bytes:
        """Claimed parent id; empty likewise."""

    @property
    def height(self) -> int | None:
        """Claimed height, None where unknown."""

    @property
    def time(self) -> int | None:
        """Claimed time in nanoseconds since the epoch, None where unknown."""

    @property
    def weight(self) -> int | None:
        """Claimed weight of the block itself, None where the plugin gave none."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """The block's bytes."""


class RawBlock(bytes):
    """A block that is held in memory, with what is claimed of it: the BlockClaims of whoever has no frame."""

    def __new__(
        cls,
        data: bytes,
        *,
        hash_: bytes = b"",
        parent: bytes = b"",
        height: int | None = None,
        time: int | None = None,
        weight: int | None = None,
    ) -> Self:
        """Takes the block's bytes and the claims, none of which is needed."""
        self = super().__new__(cls, data)
        self.hash = hash_
        self.parent = parent
        self.height = height
        self.time = time
        self.weight = weight
        return self

    hash: bytes
    parent: bytes
    height: int | None
    time: int | None
    weight: int | None


class BlockRefused(Exception):
    """The bytes are not a valid block of this chain: a verdict, caught by the mirror and reported, never shown as an error."""

    def __init__(self, reason: Reason, detail: str, hash_: bytes | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.hash = hash_


@dataclass(frozen=True, slots=True)
class TranslatedBlock:
    """A block whose identity was recomputed from its bytes, with its IR."""

    hash: bytes
    """Display order."""
    parent: bytes
    weight: int
    """The block's own weight (for Bitcoin: work, from its bits)."""
    time: int
    """Seconds since the epoch, from the bytes."""
    root_height: int | None
    """The height that the bytes themselves commit to (for Bitcoin: BIP 34), used only to place a first block."""
    height: int | None
    """The claimed height, to be checked against the parent's; None: one above the parent."""
    transaction_ids: bytes
    """The ids of the transactions, display order, 32 bytes each, in block order."""
    ir: bytes
    """The encoded columns (``ir.columns``): a function of the block's bytes alone."""
    content: bytes = b""
    """Tells two blocks of one id apart where the id does not commit to all bytes; empty where it does."""


class Translator(Protocol):
    """One chain's translator."""

    family: str
    """The manifest's ``chain``: ``bitcoin``, ``dev``."""
    network: str
    """The chain's network: ``main``, ``regtest``; empty where the family has none."""
    genesis: bytes | None
    """The raw genesis block where it is built in."""
    genesis_hash: bytes | None
    default_mode: ForkMode
    default_final_depth: int | None

    def translate(self, claims: BlockClaims) -> TranslatedBlock:
        """Parses and verifies one block. Releases the GIL for the long part. Raises BlockRefused."""
