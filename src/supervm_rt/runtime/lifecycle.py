"""The life of a plugin as one table of states.

Rules, of which the table is the whole:

- A life runs REGISTERED, LOADED, INITIALISED, RUNNING, STOPPED, UNLOADED, each but the first through a state that says so; any
  step may fail.
- A life that fails before STARTING is unloaded at once; from STARTING on it goes through stopping first.
- What never returns is ABANDONED: its thread, slot and mapping stay for the life of the process.
- REFUSED, UNLOADED and ABANDONED end a life. A restart (a new generation) leaves the last two; nothing leaves REFUSED and
  QUARANTINED.
"""

from __future__ import annotations

import enum

from supervm_rt.errors import LifecycleError


class PluginState(enum.StrEnum):
    """Where in its life a plugin is (clauses L1, L5)."""

    REGISTERED = "registered"
    REFUSED = "refused"
    LOADING = "loading"
    LOADED = "loaded"
    INITIALISING = "initialising"
    INITIALISED = "initialised"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    UNLOADED = "unloaded"
    ABANDONED = "abandoned"
    QUARANTINED = "quarantined"


_S = PluginState

TRANSITIONS: dict[PluginState, frozenset[PluginState]] = {
    _S.REGISTERED: frozenset({_S.LOADING, _S.REFUSED, _S.UNLOADED}),
    _S.REFUSED: frozenset(),
    _S.LOADING: frozenset({_S.LOADED, _S.UNLOADED, _S.ABANDONED}),
    _S.LOADED: frozenset({_S.INITIALISING, _S.UNLOADED, _S.ABANDONED}),
    _S.INITIALISING: frozenset({_S.INITIALISED, _S.UNLOADED, _S.ABANDONED}),
    _S.INITIALISED: frozenset({_S.STARTING, _S.UNLOADED, _S.ABANDONED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING}),
    _S.RUNNING: frozenset({_S.STOPPING}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.ABANDONED}),
    _S.STOPPED: frozenset({_S.UNLOADED, _S.ABANDONED}),
    _S.UNLOADED: frozenset({_S.REGISTERED, _S.QUARANTINED}),
    _S.ABANDONED: frozenset({_S.REGISTERED, _S.QUARANTINED}),
    _S.QUARANTINED: frozenset(),
}

ENDED = frozenset({_S.REFUSED, _S.UNLOADED, _S.ABANDONED, _S.QUARANTINED})
"""No call into the plugin is made in these states."""


def check_transition(plugin: str, old: PluginState, new: PluginState) -> None:
    """Raises LifecycleError where the table has no way from old to new."""
    if new not in TRANSITIONS[old]:
        raise LifecycleError(f"{plugin}: no way from {old} to {new}", remedy="this is a fault of the host; please report it")
