"""However often a plugin, its connection or its host dies, nothing is lost and nothing doubled (clauses T1, T2, T3, G2, L2)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest

from supervm_rt import EventKind, HostEvent
from supervm_rt.cli.demo import SAMPLE_CHAIN
from supervm_rt.sdk import flavours
from tests.store.support import environment
from tests.transports.kinds import KINDS, Death, Kind, configuration, digest_of, mirrored, run

BLOCKS = SAMPLE_CHAIN / "blocks"
MOST_FRAMES = 4
"""Taken at once, so that there are many moments to be killed at."""
LIFE, LONG_LIFE = (8, 3), (160, 2)
"""Frames of a life at most, and how many lives there are then at least. The long one for what takes long to start."""
SEEDS = range(2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mirrored("child", tmp_path_factory.mktemp("undisturbed") / "store.db", BLOCKS)


class Killer:
    """Kills at random frames: before they are taken, or between their taking and their commit."""

    def __init__(self, death: Death, take: Callable[..., Any], random: Random, longest_life: int) -> None:
        self.death = death
        self.take = take
        self.random = random
        self.longest_life = longest_life
        self.left = random.randint(0, longest_life)
        self.done = 0
        self.uncommitted = 0
        self.causes: set[str] = set()

    def receive_rest(self, transport: Any, **more: Any) -> Any:
        before = self.random.random() < 0.3
        if before and self.left <= 0:
            self.kill(transport, 0)
        received = self.take(transport, **more)
        self.left -= len(received.frames)
        if not before and self.left <= 0 and received.frames:
            self.kill(transport, len(received.frames))
        return received

    def kill(self, transport: Any, frames: int) -> None:
        if self.death.kill(transport):
            self.done += 1
            self.uncommitted += frames > 0
            self.left = self.random.randint(0, self.longest_life)

    def hear(self, event: HostEvent) -> None:
        if event.kind is EventKind.PLUGIN_FAILED:
            self.causes.add(str(event.data["cause"]))


def mirror_with_kills(way: Kind, death: Death, store: Path, random: Random, longest_life: int) -> Killer:
    killer = Killer(death, way.transport.receive_rest, random, longest_life)

    def take(self: Any, **more: Any) -> Any:
        return killer.receive_rest(self, **more)

    fewer = mock.patch.object(way.module, "MAX_FRAMES", MOST_FRAMES)
    sooner = mock.patch.object(flavours, "FIRST_DELAY", 0.002)
    with fewer, sooner, mock.patch.object(way.transport, "receive_rest", take):
        run(configuration(way, store, BLOCKS), death.beside or way.beside, killer.hear)
    return killer


DEATHS = [pytest.param(kind, death, id=f"{kind}, {death}") for kind, way in KINDS.items() for death in way.deaths]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "death"), DEATHS)
def test_what_dies_beside_the_host(undisturbed: str, tmp_path: Path, kind: str, death: str, seed: int) -> None:
    way = KINDS[kind]
    longest, lives = LONG_LIFE if way.deaths[death].beside else LIFE
    killer = mirror_with_kills(way, way.deaths[death], tmp_path / "store.db", Random(seed), longest)
    print(f"{kind}: killed {killer.done}, {killer.uncommitted} of them with frames taken and not committed")
    assert killer.done >= lives, f"seed {seed}"
    assert killer.uncommitted >= 1
    assert killer.causes == {way.deaths[death].cause}
    assert digest_of(tmp_path / "store.db") == undisturbed, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", [kind for kind, way in KINDS.items() if not way.secure])
def test_the_host_dies_while_a_plugin_streams(undisturbed: str, tmp_path: Path, kind: str, seed: int) -> None:
    command = [sys.executable, "-m", "tests.transports.killed", str(tmp_path), kind, str(seed)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{kind}: {done.stdout}")
    found = re.fullmatch(r"killed (\d+), (\d+) of them with frames taken and not committed; digest (\w+)\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) >= 8, f"seed {seed}"
    assert int(found[2]) >= 1
    assert found[3] == undisturbed, f"seed {seed}"
