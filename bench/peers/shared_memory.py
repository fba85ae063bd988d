"""A plugin in a process of its own that hands its blocks over in shared memory: iceoryx2's Python binding."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import time
from typing import Any

from bench.peers.processes import HEAD, SILENCE, _batch, _messages
from supervm_rt.runtime.config import DEFAULT_RING_BYTES


def _service(name: str, bound: int, batch: int) -> Any:
    """The same on both sides: a queue that holds as much as our ring does, and loses nothing."""
    import iceoryx2

    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
    builder = node.service_builder(iceoryx2.ServiceName.new(name)).publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
    builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(bound).subscriber_max_borrowed_samples(batch)
    return node, builder.max_publishers(1).max_subscribers(1).history_size(0).open_or_create()


def _send(name: str, count: int, length: int, cpu: int, bounds: tuple[int, int]) -> None:
    import iceoryx2

    os.sched_setaffinity(0, {cpu})
    kept, service = _service(name, *bounds)
    waits = iceoryx2.BackpressureStrategy.RetryUntilDelivered
    publisher = service.publisher_builder().initial_max_slice_len(HEAD.size + length).backpressure_strategy(waits).create()
    until = time.monotonic() + SILENCE
    while service.dynamic_config.number_of_subscribers == 0 and time.monotonic() < until:
        time.sleep(0.001)
    publisher.update_connections()
    for message in _messages(count, length):
        place = publisher.loan_slice_uninit(len(message))
        place.payload().as_memory_view().cast("B")[:] = message
        place.assume_init().send()
    while service.dynamic_config.number_of_subscribers and time.monotonic() < until + SILENCE:
        time.sleep(0.001)  # what was sent goes with its sender
    del kept


def iceoryx_rate(count: int, length: int, producer_cpu: int) -> float:
    """Messages per second from a publisher to a subscriber that looks without a pause."""
    from _reading import read_messages

    at_once = min(_batch(length), 256)
    bound = min(max(DEFAULT_RING_BYTES // length, 4), 8192)
    name = f"supervm-bench-{os.getpid()}-{time.monotonic_ns()}"
    kept, service = _service(name, bound, at_once)
    subscriber = service.subscriber_builder().buffer_size(bound).create()
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_send, args=(name, count, length, producer_cpu, (bound, at_once)))
    child.start()
    receive = subscriber.receive
    left, begun = count, 0.0
    until = time.monotonic() + SILENCE
    while left:
        samples: list[Any] = []
        while len(samples) < at_once and (sample := receive()) is not None:
            samples.append(sample)
        if not samples:
            if not child.is_alive() or (not begun and time.monotonic() > until):
                raise TimeoutError("the sending process said nothing")
            continue
        read_messages([sample.payload().as_memory_view() for sample in samples])
        left -= len(samples)
        if not begun:
            begun, count = time.perf_counter(), left
        for sample in samples:
            sample.delete()
    elapsed = time.perf_counter() - begun
    subscriber.delete()
    child.join(SILENCE)
    del kept
    return count / elapsed
