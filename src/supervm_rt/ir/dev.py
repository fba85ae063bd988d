"""The translator of the chain family ``dev``: for the development and the tests of plugins whose chain has no translator yet."""

from __future__ import annotations

import hashlib

from supervm_rt.ir.columns import BINARY, INT64, UINT32, ColumnData, ColumnsError, encode_columns, fixed
from supervm_rt.ir.translator import BlockClaims, BlockRefused, TranslatedBlock
from supervm_rt.model.chain import ForkMode, Reason

MAX_ID_BYTES = 64
_NANOSECONDS = 1_000_000_000


class DevTranslator:
    """Believes what the frame says: hash and parent (both needed), height, weight (1 if not given) and time (0 likewise).

    The payload may be anything; its digest is what tells two blocks of one hash apart. The IR has the block and no transactions.
    """

    family = "dev"
    network = ""
    genesis: bytes | None = None
    genesis_hash: bytes | None = None
    default_mode = ForkMode.FOLLOW
    default_final_depth: int | None = None

    def translate(self, claims: BlockClaims) -> TranslatedBlock:
        """Takes one block as it is announced. Raises BlockRefused (malformed) where hash or parent are missing or too long."""
        hash_, parent = bytes(claims.hash), bytes(claims.parent)
        if not 1 <= len(hash_) <= MAX_ID_BYTES:
            raise BlockRefused(Reason.MALFORMED, f"a dev block needs a hash of 1 to {MAX_ID_BYTES} bytes", None)
        if not 1 <= len(parent) <= MAX_ID_BYTES:
            raise BlockRefused(Reason.MALFORMED, f"a dev block needs a parent of 1 to {MAX_ID_BYTES} bytes", hash_)
        time = 0 if claims.time is None else claims.time // _NANOSECONDS
        payload = memoryview(claims)
        try:
            content = hashlib.sha256(payload).digest()
            size = payload.nbytes
        finally:
            payload.release()
        try:
            ir = encode_columns(
                self.family,
                {
                    "block": {
                        "id": ColumnData(fixed(len(hash_)), [hash_]),
                        "parent": ColumnData(fixed(len(parent)), [parent]),
                        "time": ColumnData(INT64, [time]),
                        "transaction_count": ColumnData(UINT32, [0]),
                        "size": ColumnData(UINT32, [size]),
                        "content": ColumnData(BINARY, [content]),
                    }
                },
            )
        except ColumnsError as error:
            raise BlockRefused(Reason.MALFORMED, f"a dev block that cannot be stored: {error}", hash_) from None
        return TranslatedBlock(
            hash=hash_,
            parent=parent,
            weight=1 if claims.weight is None else claims.weight,
            time=time,
            root_height=None,
            height=claims.height,
            transaction_ids=b"",
            ir=ir,
            content=content,
        )
