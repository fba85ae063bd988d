"""What the kit for plugins in Python does with all that a host may say, and with a host that goes (clauses T3, R4)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from supervm_rt import EventKind, sdk
from supervm_rt.sdk.messages import EARLIEST
from supervm_rt.transports.remote import received, service
from supervm_rt.transports.remote.messages import Buffer
from tests.remote.messages import block, field, fields, register, registered
from tests.remote.support import Served, framed, peer, serving

NAME = "org.example.kit"
SUBMITTED, RPC_ANSWER, ARCHIVE_ANSWER = 28, 34, 36
QUESTIONS = (
    field(27, field(1, "dev") + field(2, b"tx") + field(3, 5)),
    field(33, field(1, 6) + field(2, "getblockcount")),
    field(35, field(1, 7) + field(2, 1) + field(3, 9)),
)
NOTHING = (
    field(37, field(1, 7)),
    field(900, b"what a later revision says"),
    field(63, b""),
    field(28, field(4, 99)),
    b"",
    block(1),
    field(23, field(1, block(2))),
)


def exchange_of(node: Served) -> Any:
    remote: Any = node.runtime._remote
    return remote.sessions._transports[NAME].exchange


def say(node: Served, *messages: bytes) -> None:
    exchange = exchange_of(node)
    exchange.answers.extend(messages)
    exchange.poke()


def connect(node: Served, *capabilities: str) -> Any:
    return sdk.connect(f"unix:{node.path}", name=NAME, version="1.0.0", chain="dev", capabilities=("block_stream", *capabilities))


async def publish(host: sdk.Plugin, height: int) -> None:
    await host.publish(
        b"block", height=height, hash=bytes([height] * 32), parent=bytes([height - 1] * 32), position=str(height).encode()
    )
    with trio.fail_after(20):
        await host.wait_durable(str(height).encode())


def test_each_question_is_answered_and_what_is_none_is_nothing(tmp_path: Path) -> None:
    heard: list[bytes] = []
    hear = received.hear

    def note(message: Buffer, chain: bytes, generation: int) -> Any:
        heard.append(bytes(message))
        return hear(message, chain, generation)

    async def main() -> None:
        async with serving(tmp_path) as node, connect(node) as host:
            await publish(host, 1)
            say(node, *NOTHING, *QUESTIONS, *NOTHING)
            with trio.fail_after(20):
                while not any(ARCHIVE_ANSWER in fields(each) for each in heard):
                    await trio.sleep(0.002)
            await publish(host, 2)
            assert not node.seen.of(EventKind.PLUGIN_FAILED)

    with mock.patch.object(service, "hear", note):
        trio.run(main)
    answers = [fields(each) for each in heard]
    (submitted,) = [fields(each[SUBMITTED][0]) for each in answers if SUBMITTED in each]  # type: ignore[arg-type]
    assert (submitted.get(1), submitted[4], submitted[5]) == (None, [5], [(1 << 64) - 5])
    (rpc,) = [fields(each[RPC_ANSWER][0]) for each in answers if RPC_ANSWER in each]  # type: ignore[arg-type]
    assert rpc[1] == [6]
    assert fields(rpc[3][0])[1] == [(1 << 64) - 32_601]  # type: ignore[arg-type]
    (archive,) = [fields(each[ARCHIVE_ANSWER][0]) for each in answers if ARCHIVE_ANSWER in each]  # type: ignore[arg-type]
    assert (archive[1], archive[3], archive[4]) == ([7], [1], [b"this plugin serves no blocks of the past"])


@pytest.mark.parametrize("message", [b"\xff", field(30, b"\xff"), field(31, 5), field(1, b"\xff")])
def test_a_host_that_says_what_is_no_message_is_left(tmp_path: Path, message: bytes) -> None:
    async def hear(node: Served) -> None:
        async with connect(node) as host:
            await publish(host, 1)
            say(node, message)
            with trio.fail_after(20):
                await host.wait_stopped()

    async def main() -> None:
        async with serving(tmp_path) as node:
            with pytest.raises(sdk.Disconnected, match="the host sent what is no BlockMessage"):
                await hear(node)

    trio.run(main)


def test_a_transaction_is_answered(tmp_path: Path) -> None:
    async def submit_without_asking(node: Served) -> None:
        async with sdk.connect(f"unix:{node.path}", name="org.example.other", version="1.0.0", chain="dev") as host:
            with trio.fail_after(20):
                await host.submit_tx(b"tx")

    async def main() -> None:
        async with serving(tmp_path) as node:
            async with connect(node, "submit_tx") as host:
                with trio.fail_after(20):
                    answers = [await host.submit_tx(b"tx"), await host.submit_tx(b"tx", chain="elsewhere")]
                for answer in answers:
                    assert (answer.accepted, answer.status) == (False, -5)
                    assert "no route" in answer.error
                await publish(host, 1)
            with pytest.raises(sdk.Disconnected, match="was not granted submit_tx"):
                await submit_without_asking(node)

    trio.run(main)


def test_answers_that_nobody_asked_for_are_not_heard(tmp_path: Path) -> None:
    """Nor are the blocks in them mirrored; what is no message is refused as everywhere."""
    answers = (
        field(28, field(1, 1) + field(2, "aa") + field(4, 1)),
        field(34, field(1, 1) + field(2, "{}")),
        field(36, field(1, 1) + field(2, block(9)) + field(3, 1)),
        field(36, field(2, block(8)) * 5_000),
        field(35, field(1, 1)),  # the host's to say
        field(30, field(1, b"durable")),
        field(31, field(1, (1 << 64) - 1)),
        field(32, b""),
    )

    async def main() -> None:
        async with serving(tmp_path) as node, peer(node.path) as raw:
            assert registered((await raw.call("Register", register(NAME) + field(6, 1))).messages[0])
            exchange = await raw.begin("BlockExchange")
            for number in range(200):
                await raw.send(exchange, framed(answers[number % len(answers)]))
            await raw.send(exchange, framed(block(1)))
            with trio.fail_after(20):
                while (tip := node.runtime.chains["dev"].tip) is None:
                    await trio.sleep(0.002)
            assert tip.height == 1
            await raw.send(exchange, framed(field(34, b"\xff")))
            assert (await raw.finished(exchange)).status == 3

    trio.run(main)


PROGRAM = """
import asyncio, sys
import trio
from supervm_rt import sdk
from supervm_rt.sdk import flavours

flavours.FIRST_DELAY = 0.01
lives = 0

async def produce(node):
    global lives
    lives += 1
    height = int(node.position or 0) + 1
    await node.publish(b"b", height=height, hash=bytes([height]) * 32, parent=bytes([height - 1]) * 32, position=b"%d" % height)
    await node.wait_stopped()
    print("stopped in life", lives)

mine = {"name": "org.example.kit", "version": "1.0.0", "chain": "dev"}
if sys.argv[2] == "trio":
    trio.run(lambda: sdk.serve(produce, sys.argv[1], **mine))
else:
    asyncio.run(sdk.serve_asyncio(produce, sys.argv[1], **mine))
"""


async def height(node: Served, wanted: int) -> None:
    """Waits until the chain's tip is so high."""
    with trio.fail_after(30):
        while "dev" not in node.runtime.chains or (tip := node.runtime.chains["dev"].tip) is None or tip.height != wanted:
            await trio.sleep(0.005)


def begin(nursery: trio.Nursery, program: str, node: Served, flavour: str) -> Callable[[], Awaitable[tuple[int, bytes]]]:
    """Runs a plugin; what it returns waits for its status and what it printed."""
    command = [sys.executable, "-W", "error", "-c", program, f"unix:{node.path}", flavour]
    done: list[subprocess.CompletedProcess[bytes]] = []
    over = trio.Event()

    async def run() -> None:
        done.append(await trio.run_process(command, capture_stdout=True, check=False))
        over.set()

    async def ended() -> tuple[int, bytes]:
        with trio.fail_after(20):
            await over.wait()
        return done[0].returncode, done[0].stdout

    nursery.start_soon(run)
    return ended


@pytest.mark.parametrize("flavour", ["trio", "asyncio"])
def test_served_again_and_again_until_it_is_stopped(tmp_path: Path, flavour: str) -> None:
    async def main() -> None:
        async with serving(tmp_path) as node, trio.open_nursery() as nursery:
            ended = begin(nursery, PROGRAM, node, flavour)
            await height(node, 1)
            exchange_of(node).protocol.cut("the test cuts it")
            await height(node, 2)
            with trio.fail_after(20):
                await node.runtime.stop(NAME)
            assert await ended() == (0, b"stopped in life 2\n")

    trio.run(main)


TIMES = (None, 0, 1, -1, 1_231_006_505_000_000_000, 1_700_000_000_123_456_789, -999_999_999, -(10**9), 2**63 - 1, EARLIEST)
TIMED = f"""
import asyncio, sys
import trio
from supervm_rt import sdk

async def produce(node):
    this = 0
    for size in (1, 100_000):
        for time in {TIMES}:
            this += 1
            more = {{}} if time is None else {{"time": time}}
            await node.publish(bytes(size), height=this, hash=b"%d" % this, parent=b"%d" % (this - 1), **more)
    for time in (2**63, {EARLIEST} - 1):
        try:
            await node.publish(b"", time=time)
        except ValueError:
            print("refused")
    node.end_of_input()
    await node.wait_stopped()

mine = {{"name": "{NAME}", "version": "1.0.0", "chain": "dev"}}
if sys.argv[2] == "trio":
    trio.run(lambda: sdk.serve(produce, sys.argv[1], **mine))
else:
    asyncio.run(sdk.serve_asyncio(produce, sys.argv[1], **mine))
"""


@pytest.mark.parametrize("flavour", ["trio", "asyncio"])
def test_a_block_says_its_time(tmp_path: Path, flavour: str) -> None:
    """To the nanosecond, alone and in a batch, before 1970 and at the ends of what there is."""
    times: dict[int, list[int | None]] = {1: [], 100_000: []}
    batched = 0
    hear = received.hear

    def note(message: Buffer, chain: bytes, generation: int) -> Any:
        nonlocal batched
        frames, said = hear(message, chain, generation)
        batched = max(batched, len(frames))
        for frame in frames:
            times.get(len(frame), []).append(frame.time)
        return frames, said

    async def main() -> None:
        async with serving(tmp_path) as node, trio.open_nursery() as nursery:
            ended = begin(nursery, TIMED, node, flavour)
            await height(node, 2 * len(TIMES))
            await node.runtime.stop(NAME)
            assert await ended() == (0, b"refused\nrefused\n")

    with mock.patch.object(service, "hear", note):
        trio.run(main)
    assert batched > 1
    assert times == {1: list(TIMES), 100_000: list(TIMES)}
