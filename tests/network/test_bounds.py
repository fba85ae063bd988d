"""What a plugin may ask for is bounded, and what it should not do is answered, not suffered."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import trio
import trio.lowlevel

from supervm_rt import Deadlines, NetworkPolicy
from tests.network.support import (
    BOTH,
    NOT_GRANTED,
    OK,
    PLUGIN,
    QUEUE_FULL,
    STOPPING,
    TIMED_OUT,
    Names,
    Scene,
    server,
    silent_server,
)


@BOTH
async def test_sockets_at_once(scene: Scene) -> None:
    """The bound counts what the plugin has, not what it ever had: it need not say that it closed one."""
    with server() as there:
        lines = await scene.run(
            f"many 5 127.0.0.1 {there.port}; close; until 127.0.0.1 {there.port}; talk",
            allow=["127.0.0.1:*"],
            network=NetworkPolicy(sockets=3),
        )
    assert lines == [f"many: {OK}x3 {QUEUE_FULL}x2", f"until: {OK}", "talk: server"]
    assert "it has 3 sockets" in scene.network("refused")[0].message


@BOTH
async def test_requests_at_once(scene: Scene) -> None:
    with silent_server() as silent:
        lines = await scene.run(f"threads 20 127.0.0.1 {silent} 3000", allow=["127.0.0.1:*"])
    assert lines == [f"threads: {QUEUE_FULL}x4 {TIMED_OUT}x16"]


@BOTH
async def test_threads_get_each_its_own_answer(scene: Scene) -> None:
    with server() as there:
        lines = await scene.run(
            f"threads 16 127.0.0.1 {there.port} 5000; threads 16 127.0.0.2 {there.port} 5000", allow=["127.0.0.1:*"]
        )
    assert lines == [f"threads: {OK}x16", f"threads: {NOT_GRANTED}x16"]


@BOTH
async def test_requests_a_second(scene: Scene) -> None:
    with server() as there:
        lines = await scene.run(
            f"many 400 127.0.0.2 {there.port}; until 127.0.0.1 {there.port}; talk",
            allow=["127.0.0.1:*"],
            network=NetworkPolicy(rate=5),
        )
    refused, full = (int(part.partition("x")[2]) for part in lines[0].removeprefix("many: ").split())
    assert lines[0].startswith(f"many: {NOT_GRANTED}x")
    assert refused + full == 400
    assert 10 <= refused < 200
    assert lines[1:] == [f"until: {OK}", "talk: server"]
    # Nor does the flood become one of events.
    assert len(scene.network("refused")) == refused
    assert 1 <= len(scene.network("throttled")) < 20
    assert scene.network("throttled")[0].data["reason"] == "more than 5 a second"


@BOTH
async def test_a_resolver_that_hangs_holds_up_nothing(scene: Scene) -> None:
    release = threading.Event()

    def hang(_: int) -> Sequence[str]:
        release.wait(60)
        return []

    names = Names(hangs=hang)
    script = "connect hangs.example.org 80 100 0; threads 8 hangs.example.org 80 300; connect hangs.example.org 80 60000 0"
    try:
        with server() as there:
            async with scene.open(
                f"{script}; connect 127.0.0.1 {there.port} 5000 0", allow=["*:*", "127.0.0.1:*"], names=names
            ) as runtime:
                await scene.said(runtime, f"threads: {TIMED_OUT}x8")
                assert len(names.asked) <= 4  # threads that were given up still count
                status = await runtime.stop(PLUGIN)
        assert status.failure is None
        assert scene.lines()[0] == f"connect: {TIMED_OUT}"
        assert scene.lines()[2:] == [f"connect: {STOPPING}", f"connect: {STOPPING}", "done"]
    finally:
        release.set()


@BOTH
async def test_a_request_of_another_life_is_refused(scene: Scene) -> None:
    assert await scene.run("stale", allow=["*:*"]) == [f"stale: {STOPPING}"]
    assert scene.network("refused")[0].data["reason"] == "it is of life 999, not 1"


@BOTH
@pytest.mark.parametrize("life", [1, 999])
async def test_a_flood_past_the_functions_is_answered_and_the_host_goes_on(scene: Scene, life: int) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery, scene.open(f"raw 20000 {life}", allow=["*:*"], names=Names()) as runtime:
        nursery.start_soon(turn)
        await scene.reported("throttled")
        before = turns
        with trio.fail_after(60):
            while turns < before + 100:
                await trio.sleep(0.002)
        status = await runtime.stop(PLUGIN)
        nursery.cancel_scope.cancel()
    assert status.failure is None
    # Every other one is one of the few that were taken: the name is listed, and does not resolve.
    assert len(scene.network("failed")) + len(scene.network("refused")) < 500


@BOTH
@pytest.mark.parametrize(("script", "why"), [("garbage", "a packet of 3 bytes"), ("deaf 20000", "it does not read its answers")])
async def test_what_no_plugin_sends_ends_it(scene: Scene, script: str, why: str) -> None:
    async with scene.open(script, allow=["*:*"], names=Names(), deadlines=Deadlines(stop=5)) as runtime:
        with trio.fail_after(60):
            await runtime.wait_finished()
    (event,) = scene.failures()
    assert f"it broke its network channel: {why}" in event.message


@BOTH
async def test_the_next_life_has_the_network_anew(scene: Scene) -> None:
    with server() as there:
        script = f"connect 127.0.0.1 {there.port} 5000 0; garbage"
        async with scene.open(script, allow=["127.0.0.1:*"], restart="on-failure"):
            with trio.fail_after(60):
                while len(scene.network("connected")) < 2:
                    await trio.sleep(0.01)
    assert [event.generation for event in scene.network("connected")][:2] == [1, 2]


@BOTH
async def test_a_node_that_ends_closes_the_waits(scene: Scene) -> None:
    """Leaving the runtime's block is a stop like any other."""
    with silent_server() as silent:
        async with scene.open(f"threads 8 127.0.0.1 {silent} 60000", allow=["127.0.0.1:*"]) as runtime:
            with trio.fail_after(60):
                while "running" not in [str(event.data.get("to")) for event in scene.events]:
                    await trio.sleep(0.002)
            assert runtime.plugins[PLUGIN].failure is None
    assert scene.lines() == [f"threads: {STOPPING}x8", "done"]


@BOTH
async def test_waiting_for_the_network_is_a_sign_of_life(scene: Scene) -> None:
    with silent_server() as silent:
        lines = await scene.run(f"threads 2 127.0.0.1 {silent} 2000", allow=["127.0.0.1:*"], heartbeat="400ms")
    assert lines == [f"threads: {TIMED_OUT}x2"]
