"""Connections made by the host: what is listed is reached, anything else is not (clause S3), in process as in a child."""

from __future__ import annotations

import ipaddress

import pytest

from supervm_rt import NetworkPolicy, Severity
from tests.network.support import (
    BOTH,
    INVALID,
    NOT_FOUND,
    NOT_GRANTED,
    OK,
    PLUGIN,
    STOPPING,
    TIMED_OUT,
    UNREACHABLE,
    Names,
    Scene,
    dialling,
    server,
    silent_server,
)


@BOTH
async def test_a_listed_address_is_reached(scene: Scene) -> None:
    with server() as there:
        lines = await scene.run(f"connect 127.0.0.1 {there.port} 5000 0; flags; talk", allow=[f"127.0.0.1:{there.port}"])
        assert lines == [f"connect: {OK}", "flags: blocking close-on-exec stream", "talk: server"]
        assert len(there.visits) == 1
    (event,) = scene.network("connected")
    assert event.data["host"] == event.data["address"] == "127.0.0.1"
    assert event.data["port"] == there.port
    assert event.generation == 1


@BOTH
async def test_a_socket_is_nonblocking_where_asked(scene: Scene) -> None:
    with server() as there:
        lines = await scene.run(f"connect 127.0.0.1 {there.port} 5000 1; flags; read", allow=["127.0.0.1:*"])
    assert lines == [f"connect: {OK}", "flags: nonblocking close-on-exec stream", "read: EAGAIN"]


@BOTH
async def test_a_listed_name_is_resolved_by_the_host(scene: Scene) -> None:
    names = Names(node=["127.0.0.1"])
    with server() as there:
        lines = await scene.run(
            f"connect Node.Example.org. {there.port} 5000 0; talk",
            allow=[f"*.example.org:{there.port}", "127.0.0.0/8:*"],
            names=names,
        )
    assert lines == [f"connect: {OK}", "talk: server"]
    assert names.asked == ["node.example.org"]
    assert scene.network("connected")[0].data["address"] == "127.0.0.1"


@BOTH
async def test_localhost_is_loopback_where_it_is_listed_and_never_looked_up(scene: Scene) -> None:
    names = Names(localhost=["192.0.2.1"])
    with server() as there:
        lines = await scene.run(f"connect localhost {there.port} 5000 0; talk", allow=[f"localhost:{there.port}"], names=names)
    assert lines == [f"connect: {OK}", "talk: server"]
    assert names.asked == []


@BOTH
async def test_the_address_that_was_checked_is_dialled(scene: Scene) -> None:
    """A name that resolves to something else the second time (DNS rebinding)."""
    names = Names(node=lambda asked: ["127.0.0.1"] if asked == 1 else ["127.0.0.2"])
    with server() as there, server("127.0.0.2", there.port, "secret") as secret:
        lines = await scene.run(
            f"connect node.example.org {there.port} 5000 0; talk",
            allow=[f"node.example.org:{there.port}", f"127.0.0.1:{there.port}"],
            names=names,
        )
        assert lines == [f"connect: {OK}", "talk: server"]
        assert names.asked == ["node.example.org"]
        # Whatever a name resolves to later is checked anew.
        scene.events.clear()
        names.asked.append("node.example.org")
        lines = await scene.run(
            f"connect node.example.org {there.port} 5000 0",
            allow=[f"node.example.org:{there.port}", f"127.0.0.1:{there.port}"],
            names=names,
        )
        assert lines == [f"connect: {NOT_GRANTED}"]
        assert secret.visits == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "not an address",
        "fe80::1%1",
    ],
)
async def test_a_name_that_resolves_to_a_special_address_is_refused(scene: Scene, address: str) -> None:
    names = Names(node=[address])
    with server() as there:
        everything = ["*:*", "0.0.0.0/0:*", "[::/0]:*"]
        lines = await scene.run(f"connect node.example.org {there.port} 5000 0", allow=everything, names=names)
        assert there.visits == []
    assert names.asked == ["node.example.org"]
    if any(each in address for each in "% "):
        assert lines == [f"connect: {NOT_FOUND}"]
        return
    assert lines == [f"connect: {NOT_GRANTED}"]
    (event,) = scene.network("refused")
    assert event.severity is Severity.WARNING
    assert str(ipaddress.ip_address(address)) in event.message
    assert "must be listed by its address" in event.message


@BOTH
async def test_only_the_allowed_addresses_of_a_name_are_dialled(scene: Scene) -> None:
    names = Names(node=["127.0.0.2", "127.0.0.1"])
    with server() as there, server("127.0.0.2", there.port, "secret") as secret:
        lines = await scene.run(
            f"connect node.example.org {there.port} 5000 0; talk",
            allow=["node.example.org:*", "127.0.0.1:*"],
            names=names,
        )
        assert lines == [f"connect: {OK}", "talk: server"]
        assert secret.visits == []


@BOTH
async def test_what_is_not_listed_is_refused(scene: Scene) -> None:
    names = Names(other=["127.0.0.1"])
    with server() as there:
        lines = await scene.run(
            f"connect 127.0.0.1 {there.port} 5000 0; connect other.example.org {there.port} 5000 0; connect 127.0.0.2 1 5000 0;"
            f"connect example.net {there.port} 5000 0; connect 8.8.8.8 53 5000 0",
            allow=["127.0.0.1:1", f"node.example.org:{there.port}", f"*.example.net:{there.port}"],
            names=names,
        )
        assert there.visits == []
    assert lines == [f"connect: {NOT_GRANTED}"] * 5
    assert names.asked == []  # a look-up alone tells others something
    assert len(scene.network("refused")) == 5


@BOTH
async def test_what_is_no_name_is_an_invalid_argument(scene: Scene) -> None:
    wrong = ["2130706433", "0x7f000001", "127.1", "a..b", "-a.org", "a_b!", "[127.0.0.1]", "fe80::1%lo", "a/b", "a:1"]
    script = ";".join(f"connect {name} 80 1000 0" for name in wrong)
    lines = await scene.run(f"{script}; wrong 1", allow=["*:*"], names=Names())
    assert lines == [f"connect: {INVALID}"] * len(wrong) + [f"wrong: {' '.join([str(INVALID)] * 6)}"]


@BOTH
async def test_each_failure_has_its_answer(scene: Scene) -> None:
    def broken(_: int) -> list[str]:
        raise RuntimeError("broken")

    names = Names(broken=broken, empty=[])
    with server() as there:
        free = there.port
    with silent_server() as silent:
        lines = await scene.run(
            f"connect none.example.org 80 5000 0; connect broken.example.org 80 5000 0; connect empty.example.org 80 5000 0;"
            f"connect 127.0.0.1 {free} 5000 0; connect 127.0.0.1 {silent} 200 0",
            allow=["*:*", "127.0.0.1:*"],
            names=names,
        )
    assert lines == [f"connect: {status}" for status in (NOT_FOUND, NOT_FOUND, NOT_FOUND, UNREACHABLE, TIMED_OUT)]
    assert len(scene.network("failed")) == 5


@BOTH
async def test_the_next_address_is_tried_where_one_does_not_answer(scene: Scene) -> None:
    names = Names(node=["127.0.0.2", "127.0.0.1"])
    with server() as there:  # nobody listens on 127.0.0.2
        lines = await scene.run(
            f"connect node.example.org {there.port} 5000 0; talk", allow=["*:*", "127.0.0.0/8:*"], names=names
        )
    assert lines == [f"connect: {OK}", "talk: server"]


@BOTH
async def test_the_operator_narrows_what_the_manifest_lists(scene: Scene) -> None:
    with server() as there:
        script = f"connect 127.0.0.1 {there.port} 5000 0; connect 127.0.0.2 {there.port} 5000 0"
        lines = await scene.run(script, allow=["127.0.0.0/8:*"], network=NetworkPolicy(allow=["127.0.0.2:*", "10.0.0.0/8:*"]))
        assert there.visits == []
    assert lines == [f"connect: {NOT_GRANTED}", f"connect: {UNREACHABLE}"]
    assert "the operator's list does not have it" in scene.network("refused")[0].message


@BOTH
@pytest.mark.parametrize(
    ("allow", "network"), [([], None), ([], NetworkPolicy(allow=["*:*"])), (["*:*"], NetworkPolicy(allow=[]))]
)
async def test_there_is_no_extension_where_nothing_is_granted(
    scene: Scene, allow: list[str], network: NetworkPolicy | None
) -> None:
    assert await scene.run("has", allow=allow, network=network) == ["has: nothing"]


@BOTH
async def test_a_remote_end_that_never_answers_does_not_hold_up_the_stop(scene: Scene) -> None:
    with silent_server() as silent:
        async with scene.open(f"connect 127.0.0.1 {silent} 60000 0", allow=["127.0.0.1:*"]) as runtime:
            await dialling(silent)
            status = await runtime.stop(PLUGIN)
    assert status.failure is None
    assert scene.lines() == [f"connect: {STOPPING}", "done"]
