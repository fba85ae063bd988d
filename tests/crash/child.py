"""A forked child that does one thing, answers with JSON, and cannot hang its parent."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DEADLINE = 60.0
"""Seconds; a run takes about a tenth of one."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    signal: int
    """0: by itself."""
    answer: Any
    """What it returned; None where it did not get so far."""
    failure: str
    """The traceback of what it raised, or that it hung; empty where it ended well or by a signal."""


def in_child(function: Callable[[], Any]) -> Ended:
    """Calls it in a child of this process, which must have no threads. The child's threads are not waited for."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            try:
                text = json.dumps({"answer": function()})
            except BaseException:
                text = json.dumps({"failure": traceback.format_exc()})
            with os.fdopen(writing, "w") as pipe:
                pipe.write(text)
        finally:
            os._exit(0)
    os.close(writing)
    hung = True
    try:
        said, hung = _read(reading)
    finally:
        if hung:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if hung:
        return Ended(0, None, f"it hung for {DEADLINE:g} s")
    if os.WIFSIGNALED(status):
        return Ended(os.WTERMSIG(status), None, "")
    if not said:
        return Ended(0, None, f"it ended without a word, with status {os.WEXITSTATUS(status)}")
    told = json.loads(said)
    return Ended(0, told.get("answer"), told.get("failure", ""))


def _read(descriptor: int) -> tuple[bytes, bool]:
    """All that comes, and whether it took too long."""
    said = b""
    deadline = time.monotonic() + DEADLINE
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while True:
            readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                return said, True
            part = pipe.read(65536)
            if not part:
                return said, False
            said += part
