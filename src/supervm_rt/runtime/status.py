"""What a running node says of its plugins to whoever asks on the same machine.

It listens on a Unix socket with an abstract name, told from the store's file: so nothing lies beside the store, and nothing is
left of a node that was killed. Each who connects is sent one JSON document.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from supervm_rt.errors import OperatorError, StoreError

if TYPE_CHECKING:
    from supervm_rt.runtime.runtime import Runtime
    from supervm_rt.runtime.supervisor import PluginStatus

MAX_ANSWER_BYTES = 16 << 20
_ANSWER_SECONDS = 5.0
_SEND_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
"""After a connection that could not be accepted, for want of a descriptor as a rule."""
_WAITING = 16
_CREDENTIALS = struct.Struct("3i")


def describe(status: PluginStatus) -> dict[str, Any]:
    """One plugin as JSON."""
    confinement = status.confinement
    if status.placement is None:
        sandbox = None
    elif status.placement == "in-process":
        sandbox = "none"
    else:
        sandbox = None if confinement is None else "degraded" if confinement.degraded else "full"
    return {
        "plugin": status.plugin,
        "name": status.name,
        "version": status.version,
        "chain": status.chain,
        "state": str(status.state),
        "generation": status.generation,
        "placement": status.placement,
        "sandbox": sandbox,
        "quotas": dict(confinement.quotas) if confinement else {},
        "confinement": dataclasses.asdict(confinement) if confinement else None,
        "network": status.network.as_data() if status.network else None,
        "idle": status.idle,
        "finished": status.finished,
        "failure": str(status.failure) if status.failure else None,
    }


def _address(store: Path) -> str:
    found = store.stat()
    return f"\0supervm-rt/{found.st_dev:x}-{found.st_ino:x}"


def _peer(connected: socket.socket | trio.socket.SocketType) -> int:
    """The user at the other end."""
    return int(_CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1])


async def serve_status(runtime: Runtime, store: Path) -> None:
    """Answers root and the node's own user until it is cancelled. A node that cannot listen runs all the same."""
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener, contextlib.suppress(OSError):
        await listener.bind(_address(store))
        listener.listen(_WAITING)
        while True:
            try:
                connected, _ = await listener.accept()
            except OSError:
                await trio.sleep(_PAUSE_SECONDS)
                continue
            with connected, contextlib.suppress(OSError), trio.move_on_after(_SEND_SECONDS):
                if _peer(connected) in {0, os.geteuid()}:
                    await _send(connected, {"process": os.getpid(), "plugins": [*map(describe, runtime.plugins.values())]})


async def _send(connected: trio.socket.SocketType, answer: dict[str, Any]) -> None:
    left = memoryview(json.dumps(answer).encode())
    while left:
        left = left[await connected.send(left) :]


def ask_status(store: Path) -> dict[str, Any]:
    """What the node says that has this store open: its ``process`` and its ``plugins``. Raises OperatorError."""
    try:
        address, owner = _address(store), store.stat().st_uid
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise StoreError(f"{store}: cannot be looked at ({why})", remedy="name the store of a running node") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        try:
            asking.connect(address)
            if _peer(asking) not in {0, owner, os.geteuid()}:
                raise OperatorError(f"a process of another user stands for the node of {store}", remedy="stop it")
            answer = json.loads(b"".join(_received(asking)))
        except (ConnectionError, FileNotFoundError):
            raise OperatorError(f"no node has the store {store} open", remedy="start one with the command run") from None
        except (OSError, ValueError):
            raise OperatorError(
                f"the node of {store} does not answer", remedy="ask as root, or as the user that runs it; or try again"
            ) from None
    return dict(answer)


def _received(asking: socket.socket) -> Iterable[bytes]:
    left = MAX_ANSWER_BYTES
    while left and (data := asking.recv(min(left, 1 << 16))):
        left -= len(data)
        yield data
