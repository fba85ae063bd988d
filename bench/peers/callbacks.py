"""A library that calls back into Python for each block: ctypes, and cffi in its compiled mode."""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Callable
from typing import Any

from bench.building import TARGET
from supervm_rt.runtime.config import DEFAULT_RING_BYTES

BATCH = 4096
"""The most blocks that are read at once; and a quarter of a ring of them, as with ours."""
Pairs = list[tuple[int, bytes]]


class _Block(ctypes.Structure):
    _fields_ = (
        ("height", ctypes.c_uint64),
        ("payload", ctypes.c_void_p),
        ("length", ctypes.c_uint64),
        ("hash", ctypes.c_uint8 * 32),
        ("parent", ctypes.c_uint8 * 32),
    )


def ctypes_rate(count: int, length: int, producer_cpu: int) -> float:
    """Blocks per second."""
    library = ctypes.CDLL(str(TARGET / "callback.so"))
    function = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Block))
    pairs: Pairs = []
    read = _reader(pairs)
    string_at = ctypes.string_at
    batch = _batch(length)

    def on_block(pointer: Any) -> None:
        block = pointer.contents
        pairs.append((block.height, string_at(block.payload, block.length)))
        if len(pairs) == batch:
            read()

    callback = function(on_block)
    publish = library.publish_all
    publish.argtypes = (function, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)
    return _timed(lambda: publish(callback, count, length, producer_cpu), read, count)


def cffi_rate(count: int, length: int, producer_cpu: int) -> float:
    """Blocks per second."""
    module: Any = importlib.import_module("_callback_cffi")
    pairs: Pairs = []
    read = _reader(pairs)
    buffer = module.ffi.buffer
    batch = _batch(length)

    def on_block(block: Any) -> None:
        pairs.append((block.height, buffer(block.payload, block.length)[:]))
        if len(pairs) == batch:
            read()

    module.ffi.def_extern(name="on_block")(on_block)
    return _timed(lambda: module.lib.publish_all(module.lib.on_block, count, length, producer_cpu), read, count)


def _batch(length: int) -> int:
    return min(BATCH, max(DEFAULT_RING_BYTES // 4 // length, 1))


def _reader(pairs: Pairs) -> Callable[[], None]:
    from _reading import read_pairs

    def read() -> None:
        read_pairs(pairs)
        pairs.clear()

    return read


def _timed(publish: Callable[[], Any], read: Callable[[], None], count: int) -> float:
    begun = time.perf_counter()
    if publish() != 0:
        raise MemoryError
    read()
    return count / (time.perf_counter() - begun)
