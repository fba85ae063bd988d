"""A socket that was handed over leads to one end, and to no other: attacks on it succeed in process, and fail in a sandbox."""

from __future__ import annotations

import pytest
import trio

from supervm_rt.trust.policy import Placement
from tests.network.support import OK, SECONDS, Scene, server

TRIED = ("unconnect", "reconnect", "fast open", "message", "urgent", "make", "unblock", "option", "bind", "listen", "accept")


async def attack(scene: Scene, profile: str) -> tuple[dict[str, str], int]:
    """What each attempt saw, and how many came to where the plugin must not."""
    with server() as there, server("127.0.0.1", 0, "secret") as secret:
        lines = await scene.run(
            f"here; connect 127.0.0.1 {there.port} 5000 0; escape {secret.port}",
            allow=[f"127.0.0.1:{there.port}"],
            profile=profile,
        )
        with trio.fail_after(SECONDS):
            while "reconnect: OK" in lines and not secret.visits:
                await trio.sleep(0.002)
        visits = len(secret.visits)
    assert lines[0] == f"connect: {OK}"
    return dict(line.split(": ") for line in lines[1:]), visits


async def test_without_a_sandbox_it_can_be_turned_to_another_end(scene: Scene) -> None:
    seen, visits = await attack(scene, "strict")
    # Once it leads elsewhere, what names an address besides is ignored or refused by the kernel itself.
    assert {name: seen[name] for name in TRIED if name not in {"fast open", "message"}} == {
        "unconnect": "OK",
        "reconnect": "OK",
        "urgent": "OK",
        "make": "OK",
        "unblock": "OK",
        "option": "OK",
        "bind": "OK",
        "listen": "OK",
        "accept": "EAGAIN",
    }
    assert visits == 1


@pytest.mark.unsanitized
@pytest.mark.parametrize("placement", [Placement.CHILD], indirect=True, ids=str)
@pytest.mark.parametrize("profile", ["strict", "baseline"])
async def test_in_a_sandbox_it_cannot(scene: Scene, profile: str) -> None:
    seen, visits = await attack(scene, profile)
    assert seen == dict.fromkeys(TRIED, "EPERM")
    assert visits == 0


@pytest.mark.unsanitized
@pytest.mark.parametrize("placement", [Placement.CHILD], indirect=True, ids=str)
async def test_it_works_without_threads(scene: Scene) -> None:
    with server() as there:
        script = f"here; connect 127.0.0.1 {there.port} 5000 0; talk; flags"
        lines = await scene.run(script, allow=["127.0.0.1:*"], profile="strict")
    assert lines == [f"connect: {OK}", "talk: server", "flags: blocking close-on-exec stream"]
