"""When a plugin that failed is started again: later each time, at a moment drawn at random, and not for ever (clause L2)."""

from __future__ import annotations

import random

import pytest
import trio

from supervm_rt import EventKind, PluginState, RestartLimits, RestartPolicy
from tests.runtime.support import ACTOR, MakePlugin, Node, actor

LOWEST, HIGHEST = 0.75, 1.25


def delays(node: Node, make_plugin: MakePlugin, limits: RestartLimits, lives: int) -> tuple[list[float], PluginState]:
    """Seconds before each further life of a plugin whose plugin_init fails, and its state after so many lives."""
    states: list[PluginState] = []

    async def main() -> None:
        plugin = actor(make_plugin(), "init-fails", restart=RestartPolicy.ON_FAILURE)
        async with node.open(plugin, restarts=limits) as runtime:
            with trio.fail_after(30):
                while runtime.plugins[ACTOR].generation < lives and not runtime.plugins[ACTOR].finished:
                    await trio.sleep(0.001)
                if limits.failures == lives:
                    await runtime.wait_finished()
            states.append(runtime.plugins[ACTOR].state)

    trio.run(main)
    found = [event.data["seconds"] for event in node.of(EventKind.PLUGIN_RESTARTING)]
    assert all(isinstance(seconds, float) for seconds in found)
    return [float(str(seconds)) for seconds in found], states[0]


@pytest.mark.parametrize("drawn", [LOWEST, HIGHEST])
def test_each_delay_is_twice_the_last_up_to_the_longest(
    node: Node, make_plugin: MakePlugin, monkeypatch: pytest.MonkeyPatch, drawn: float
) -> None:
    def draw(low: float, high: float) -> float:
        assert (low, high) == (LOWEST, HIGHEST)
        return drawn

    monkeypatch.setattr(random, "uniform", draw)
    limits = RestartLimits(first_delay=0.008, longest_delay=0.04, failures=6, window=300)
    found, state = delays(node, make_plugin, limits, lives=6)
    assert found == pytest.approx([drawn * seconds for seconds in (0.008, 0.016, 0.032, 0.04, 0.04)])
    assert state is PluginState.QUARANTINED, "after so many failures within the window"


def test_delays_are_drawn_at_random(node: Node, make_plugin: MakePlugin) -> None:
    """Plugins that failed together do not come back together."""
    limits = RestartLimits(first_delay=0.04, longest_delay=0.04, failures=9, window=300)
    found, _ = delays(node, make_plugin, limits, lives=9)
    assert len(found) == 8
    assert all(LOWEST * 0.04 - 0.001 <= seconds <= HIGHEST * 0.04 + 0.001 for seconds in found)
    assert len(set(found)) > 1


def test_failures_outside_of_the_window_are_forgotten(node: Node, make_plugin: MakePlugin) -> None:
    """Each delay is longer than the window: there is one failure in it at a time, and no end."""
    limits = RestartLimits(first_delay=0.01, longest_delay=1, failures=2, window=0.005)
    found, state = delays(node, make_plugin, limits, lives=6)
    assert len(found) >= 5
    assert all(seconds <= HIGHEST * 0.01 + 0.001 for seconds in found), "nor do they lengthen a delay"
    assert state is not PluginState.QUARANTINED
