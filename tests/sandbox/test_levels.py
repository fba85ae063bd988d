"""What Permissive and Strict make of a plugin that was verified: where it runs, what it is held to (clauses P2, P3, S1)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervm_rt.transports.native.child.cgroups import find_bases
from tests.sandbox.support import make_attacker, observe, users, without_namespaces

LIMITS = '{cpu: "0.5", memory: 64MiB, storage: 1MiB}'


@pytest.fixture(params=users(), ids=lambda user: "root" if user == 0 else "user")
def user(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def work(user: int) -> Iterator[Path]:
    """Not below pytest's own folder: that is closed to others, and so to the ordinary user."""
    with tempfile.TemporaryDirectory(prefix="supervm-levels-") as name:
        os.chown(name, user, user)
        yield Path(name)


def run(folder: Path, work: Path, user: int, level: str, **fields: str) -> dict[str, Any]:
    folder.parent.chmod(0o755)
    make_attacker(folder, **fields)
    seen: dict[str, Any] = observe(folder, work, ["write_storage"], {}, user=user, level=level)["acts"]["write_storage"]
    return seen


def test_permissive_runs_in_a_sandbox_what_asks_for_none(work: Path, user: int, tmp_path: Path) -> None:
    fields = {"security": "{sandbox: false}", "resources": LIMITS}
    seen = run(tmp_path / "plugin", work, user, "permissive", **fields)
    assert seen["placement"] == "child"
    assert "policy permissive loads plugins that were verified; this one runs in a sandbox" in seen["decision"]
    assert seen["confined"]["degraded"] is False
    assert seen["log"] == ["write_storage answered 100"], "also where a quota is only looked at"
    assert set(seen["confined"]["quotas"]) == {"cpu", "memory", "storage"}
    assert seen["failures"] == []


def test_strict_runs_it_where_every_quota_is_enforced_and_says_what_is_not(work: Path, user: int, tmp_path: Path) -> None:
    seen = run(tmp_path / "plugin", work, user, "strict", security="{sandbox: false}", resources=LIMITS)
    assert "policy strict loads plugins that were verified" in seen["decision"]
    if user == 0 and find_bases() is not None:
        assert seen["placement"] == "child"
        assert seen["log"] == ["write_storage answered 100"]
        assert seen["failures"] == []
        return
    assert seen["log"] == []
    assert seen["state"] == "unloaded"
    (failure,) = seen["failures"]
    assert "this machine cannot enforce the quota of cpu" in failure
    assert "run the node as root" in failure
    assert user == 0 or "the quota of storage" in failure


def test_strict_does_not_take_the_degraded_mode(work: Path, user: int, tmp_path: Path) -> None:
    make_attacker(tmp_path / "plugin", read_paths="[]", resources="{}")
    tmp_path.chmod(0o755)
    (tmp_path / "root").mkdir()
    prefix = without_namespaces(tmp_path / "root")
    seen = observe(tmp_path / "plugin", work, ["nothing"], {}, user=user, level="strict", prefix=prefix)
    assert seen["degraded"] is True
    (failure,) = seen["acts"]["nothing"]["failures"]
    assert "this machine cannot enforce namespaces (" in failure
    assert "allow user namespaces" in failure
    permissive = observe(tmp_path / "plugin", work, ["nothing"], {}, user=user, level="permissive", prefix=prefix)
    assert permissive["acts"]["nothing"]["failures"] == []
    assert permissive["acts"]["nothing"]["confined"]["degraded"] is True
