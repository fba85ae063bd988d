"""Listening: the host holds the listening socket, and hands over who comes."""

from __future__ import annotations

import socket

import pytest

from supervm_rt import NetworkPolicy
from tests.network.support import (
    BOTH,
    INVALID,
    NOT_FOUND,
    NOT_GRANTED,
    OK,
    PLUGIN,
    QUEUE_FULL,
    STOPPING,
    TIMED_OUT,
    UNREACHABLE,
    WOULD_BLOCK,
    Scene,
    server,
)


async def port_of(scene: Scene) -> int:
    port: int = (await scene.reported("listening")).data["port"]  # type: ignore[assignment]
    return port


@BOTH
@pytest.mark.parametrize(("flags", "blocking"), [(0, "blocking"), (1, "nonblocking")])
async def test_who_comes_is_handed_over(scene: Scene, flags: int, blocking: str) -> None:
    script = f"listen 127.0.0.1 0; accept 20000 {flags}; flags; accept 0 0; unlisten; accept 0 0; unlisten"
    async with scene.open(script, listen=["127.0.0.1:0"]) as runtime:
        port = await port_of(scene)
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            await scene.said(runtime, "done")
            (event,) = scene.network("accepted")
            assert (event.data["host"], event.data["port"]) == visitor.getsockname()
    assert scene.lines() == [
        f"listen: {OK} {port}",
        f"accept: {OK}",
        f"flags: {blocking} close-on-exec stream",
        f"accept: {WOULD_BLOCK}",
        f"unlisten: {OK}",
        f"accept: {NOT_FOUND}",
        f"unlisten: {NOT_FOUND}",
        "done",
    ]


@BOTH
async def test_only_what_is_listed_can_be_listened_on(scene: Scene) -> None:
    script = "listen 127.0.0.1 0; listen 0.0.0.0 0; listen 127.0.0.2 0; listen localhost 0; listen 192.0.2.1 0; listen ::1 1"
    lines = await scene.run(
        script,
        listen=["127.0.0.0/8:*", "0.0.0.0/0:*", "192.0.2.1:*", "[::/0]:*"],
        network=NetworkPolicy(listen=["127.0.0.1:*", "192.0.2.1:*"]),
    )
    assert lines[0].startswith(f"listen: {OK} ")
    assert lines[1:] == [f"listen: {status} 0" for status in (NOT_GRANTED, NOT_GRANTED, INVALID, UNREACHABLE, NOT_GRANTED)]


@BOTH
async def test_waiting_for_somebody_ends(scene: Scene) -> None:
    async with scene.open("listen 127.0.0.1 0; accept 50 0; accept -1 0", listen=["127.0.0.1:*"]) as runtime:
        port = await port_of(scene)
        await scene.said(runtime, f"accept: {TIMED_OUT}")
        status = await runtime.stop(PLUGIN)
        assert status.failure is None
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0  # nobody listens any more
    assert scene.lines() == [f"listen: {OK} {port}", f"accept: {TIMED_OUT}", f"accept: {STOPPING}", "done"]


@BOTH
async def test_listeners_and_sockets_are_bounded(scene: Scene) -> None:
    script = "; ".join(["listen 127.0.0.1 0"] * 9)
    with server() as there:
        lines = await scene.run(
            f"{script}; connect 127.0.0.1 {there.port} 5000 0; accept 0 0; close; accept -1 2",
            listen=["127.0.0.1:*"],
            allow=["127.0.0.1:*"],
            network=NetworkPolicy(sockets=1),
        )
    assert [line.split()[1] for line in lines[:9]] == [str(OK)] * 8 + [str(QUEUE_FULL)]
    assert lines[9:] == [f"connect: {OK}", f"accept: {QUEUE_FULL}", f"accept: {INVALID}"]


@BOTH
async def test_listening_needs_its_own_list(scene: Scene) -> None:
    lines = await scene.run("listen 127.0.0.1 0; accept 0 0", allow=["127.0.0.1:*"])
    assert lines == [f"listen: {NOT_GRANTED} 0", f"accept: {NOT_FOUND}"]
