"""However the process of a sandboxed plugin ends, its restart policy answers (clause L2)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.host_process import QUICK
from tests.sandbox.support import Aim, make_attacker, observe

AGAIN = {
    "crash": "crash",
    "exit_0": "exit",
    "execute": "forbidden-call",
    "write_one_large": "quota",
    "forge_control": "control",
    "spin_in_init": "hang",
}
"""What a plugin does in each of its lives, and how that is named."""
ONCE = {"false_head": ("corrupt-ring", "quarantined"), "forge_loaded": ("load", "unloaded")}
"""After this it is not started again: how that is named, and what becomes of the plugin."""


@pytest.fixture(scope="module")
def seen(aim: Aim, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each by a plugin of its own in one node."""
    folder = make_attacker(tmp_path_factory.mktemp("attacker") / "plugin", read_paths="[]", resources="{storage: 4MiB}")
    make_attacker(folder / "forge_loaded", "-DFORGE_LOADED", read_paths="[]")
    options: dict[str, Any] = {"user": aim.user, "seconds": 1, "initialise": 1, "restart": "on-failure"}
    found: dict[str, Any] = observe(folder, aim.work, [*AGAIN, *ONCE], {}, **options)["acts"]
    return found


@pytest.mark.parametrize("act", AGAIN)
def test_it_is_started_again_until_it_failed_too_often(act: str, seen: dict[str, Any]) -> None:
    entry = seen[act]
    assert entry["causes"] == [AGAIN[act]] * QUICK.failures, entry
    assert entry["restarts"] == list(range(1, QUICK.failures))
    assert entry["generation"] == QUICK.failures
    assert entry["state"] == "quarantined"


@pytest.mark.parametrize("act", ONCE)
def test_what_lied_is_not_started_again(act: str, seen: dict[str, Any]) -> None:
    cause, state = ONCE[act]
    entry = seen[act]
    assert entry["causes"] == [cause], entry
    assert (entry["restarts"], entry["generation"], entry["state"]) == ([], 1, state)
