"""A plugin in a process of its own that sends its blocks through a socket or a pipe."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervm_rt.runtime.config import DEFAULT_RING_BYTES

HEAD = struct.Struct("<Q64x")
"""Number, then room for hash and parent."""
BATCH = 4096
POOL_BYTES = 1 << 20
SILENCE = 30
"""Seconds after which a sender counts as gone."""
WHOLE_FROM = 1 << 16
"""From this length on pyzmq's own advice is to send and receive without a copy."""


def _messages(count: int, length: int) -> Iterator[bytes]:
    """As many blocks, made beforehand and sent again and again: it costs the sender nothing to make one."""
    pool = [HEAD.pack(number) + bytes(length) for number in range(max(POOL_BYTES // length, 1))]
    return itertools.islice(itertools.cycle(pool), count)


def _batch(length: int) -> int:
    """How many are read at once: a quarter of a ring of them, as with ours."""
    return min(BATCH, max(DEFAULT_RING_BYTES // 4 // length, 1))


def _send_zmq(path: str, count: int, length: int, cpu: int, bound: int) -> None:
    import zmq

    os.sched_setaffinity(0, {cpu})
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.sndhwm = bound
        socket.connect(f"ipc://{path}")
        whole = length >= WHOLE_FROM
        for message in _messages(count, length):
            if whole:
                socket.send(message, copy=False)
            else:
                socket.send(message)


def zmq_rate(count: int, length: int, producer_cpu: int) -> float:
    """Messages per second over an ipc socket (PUSH to PULL)."""
    import zmq
    from _reading import read_messages

    bound = max(DEFAULT_RING_BYTES // length, 4)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context, context.socket(zmq.PULL) as socket:
        path = str(Path(folder) / "blocks")
        socket.rcvhwm = bound
        socket.bind(f"ipc://{path}")
        child = spawn.Process(target=_send_zmq, args=(path, count, length, producer_cpu, bound))
        child.start()
        whole = length >= WHOLE_FROM
        socket.rcvtimeo = SILENCE * 1000
        receive = socket.recv
        read_messages([receive(copy=not whole)])
        at_once = _batch(length)
        begun = time.perf_counter()
        left = count - 1
        while left:
            batch = [receive(copy=not whole) for _ in range(min(left, at_once))]
            read_messages(batch)
            left -= len(batch)
        elapsed = time.perf_counter() - begun
        child.join()
    return (count - 1) / elapsed


def _send_pipe(pipe: Any, count: int, length: int, cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    for message in _messages(count, length):
        pipe.send_bytes(message)
    pipe.close()


def pipe_rate(count: int, length: int, producer_cpu: int) -> float:
    """Messages per second over ``multiprocessing.Pipe``."""
    from _reading import read_messages

    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_send_pipe, args=(sending, count, length, producer_cpu))
    child.start()
    sending.close()
    if not receiving.poll(SILENCE):
        raise TimeoutError("the sending process said nothing")
    receive = receiving.recv_bytes  # Ends with EOFError where the sender ends early.
    read_messages([receive()])
    at_once = _batch(length)
    begun = time.perf_counter()
    left = count - 1
    while left:
        batch = [receive() for _ in range(min(left, at_once))]
        read_messages(batch)
        left -= len(batch)
    elapsed = time.perf_counter() - begun
    child.join()
    receiving.close()
    return (count - 1) / elapsed
