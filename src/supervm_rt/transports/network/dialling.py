"""Connecting and listening, by address alone: nothing here looks a name up."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

import trio

from supervm_rt.model.network import Address

BACKLOG = 64


def _new_socket(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


async def _dial_one(address: Address, port: int) -> socket.socket:
    connection = _new_socket(address)
    try:
        answer = connection.connect_ex((str(address), port))
        if answer == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(connection)
            answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if answer != 0:
            raise OSError(answer, os.strerror(answer))
        # A port that was connected to itself has nobody at the other end.
        if connection.getsockname() == connection.getpeername():
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    except BaseException:
        connection.close()
        raise
    return connection


async def dial(addresses: Sequence[Address], port: int, seconds: float) -> tuple[socket.socket, Address]:
    """A connection to the first that takes one; the time is shared among them. Raises OSError, TimeoutError."""
    end = trio.current_time() + seconds
    last = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    for index, address in enumerate(addresses):
        share = max(end - trio.current_time(), 0.0) / (len(addresses) - index)
        try:
            with trio.fail_after(share):
                return await _dial_one(address, port), address
        except trio.TooSlowError:
            last = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        except OSError as error:
            last = error
    raise last


def listen_on(address: Address, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    listener = _new_socket(address)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 addresses are listed as such
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
