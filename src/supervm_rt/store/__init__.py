"""The mirror of chains on disk: one SQLite file, one writer, any number of readers. Synchronous; knows no event loop."""

from supervm_rt.store.database import Store
from supervm_rt.store.digest import ChainDigest, digest
from supervm_rt.store.inputs import Applied, BlockInput, Buffer, EndOfInput, FinalInput, Input, RefusedInput, ReorgInput
from supervm_rt.store.mirror import Mirror
from supervm_rt.store.queries import ChainReader
from supervm_rt.store.records import (
    BlockState,
    ChainInfo,
    ChainStatistics,
    StoredBlock,
    StoredEvent,
    StoredTransaction,
)
from supervm_rt.store.replay import replay

__all__ = [
    "Applied",
    "BlockInput",
    "BlockState",
    "Buffer",
    "ChainDigest",
    "ChainInfo",
    "ChainReader",
    "ChainStatistics",
    "EndOfInput",
    "FinalInput",
    "Input",
    "Mirror",
    "RefusedInput",
    "ReorgInput",
    "Store",
    "StoredBlock",
    "StoredEvent",
    "StoredTransaction",
    "digest",
    "replay",
]
