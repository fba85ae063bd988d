"""Replays a file of reorg sequences over a real store in a temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from supervm_rt.chain import vectors
from supervm_rt.chain.types import Outcome
from supervm_rt.ir.translator import BlockClaims, BlockRefused, TranslatedBlock
from supervm_rt.model.chain import ForkMode, Reason, Verdict
from supervm_rt.store.database import Store
from supervm_rt.store.faults import from_system
from supervm_rt.store.inputs import BlockInput, FinalInput, Input, ReorgInput
from supervm_rt.store.mirror import Mirror

_CHAIN = "replay"


class _Opaque:
    """Stands where a chain's translator stands: the blocks here are ids without bytes."""

    family = "replay"
    network = ""
    genesis: bytes | None = None
    genesis_hash: bytes | None = None
    default_mode = ForkMode.FOLLOW
    default_final_depth: int | None = None

    def translate(self, claims: BlockClaims) -> TranslatedBlock:
        raise BlockRefused(Reason.MALFORMED, "these blocks have no bytes", claims.hash)


def replay(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Answers each input line, in order, with an object ready for ``json.dumps``; see ``chain.vectors`` for both formats.

    Raises VectorError at the line that cannot be read, when those before it were answered; StoreError where the folder or the
    store in it cannot be written. Closing the iterator removes the folder.
    """
    setup, inputs = vectors.read_vectors(lines)
    with _temporary_folder() as folder:
        path = Path(folder) / "replay.store"

        def reopen() -> tuple[Store, Mirror]:
            opened = Store.open(path, durable=False)
            return opened, opened.mirror(_CHAIN, translator=_Opaque(), rules=setup.rules)

        store, mirror = reopen()
        try:
            if setup.root is not None:
                mirror.set_root(setup.root)
            for input_ in inputs:
                if isinstance(input_, vectors.Malformed):
                    outcome = input_.outcome
                elif isinstance(input_, vectors.RestartInput):
                    store.close()
                    store, mirror = reopen()
                    outcome = Outcome(Verdict.ACCEPTED)
                else:
                    (applied,) = mirror.apply(_CHAIN, [_as_input(input_)])
                    outcome = applied.outcome
                yield vectors.render_outcome(input_, outcome, mirror.tip)
        finally:
            store.close()


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        # By the time it is removed all is answered: that it cannot be is no failure of the replay.
        return tempfile.TemporaryDirectory(prefix="supervm-replay-", ignore_cleanup_errors=True)
    except OSError as error:
        folder = Path(error.filename or os.environ.get("TMPDIR", "/tmp"))
        raise from_system(error, folder, "make a temporary folder for the replay,") from error


def _as_input(input_: vectors.BlockInput | vectors.FinalInput | vectors.ReorgInput) -> Input:
    match input_:
        case vectors.BlockInput(candidate):
            block = TranslatedBlock(
                hash=candidate.hash,
                parent=candidate.parent,
                weight=candidate.weight,
                time=0,
                root_height=None,
                height=candidate.height,
                transaction_ids=b"",
                ir=b"",
                content=candidate.content,
            )
            return BlockInput(block, b"", final_height=candidate.final_height)
        case vectors.FinalInput(hash_, height):
            return FinalInput(hash_, height)
        case vectors.ReorgInput(from_height, to_height, orphans):
            return ReorgInput(from_height, to_height, orphans)
