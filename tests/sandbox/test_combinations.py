"""A plugin starts, is confined and answers in every combination of namespaces, network, profile and user (clauses T2, S1)."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.support import make_attacker, observe, users, without_namespaces

ALLOW = "{allow: ['127.0.0.1:1']}"


@pytest.fixture(params=users(), ids=lambda user: "root" if user == 0 else "user")
def user(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def work(user: int) -> Iterator[Path]:
    """Not below pytest's own folder: that is closed to others, and so to the ordinary user."""
    with tempfile.TemporaryDirectory(prefix="supervm-combinations-") as name:
        os.chown(name, user, user)
        yield Path(name)


@pytest.mark.parametrize("degraded", [False, True], ids=["namespaces", "degraded"])
@pytest.mark.parametrize("network", [False, True], ids=["no-network", "network"])
@pytest.mark.parametrize("profile", ["strict", "baseline", "own"])
def test_it_lives_and_is_confined(degraded: bool, network: bool, profile: str, work: Path, user: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    secret = work / "secret"
    secret.write_text("secret")
    os.chown(secret, user, user)
    secret.chmod(0o600)
    if profile == "own":
        own = tmp_path / "own.profile"
        own.write_text("include baseline\n")
        own.chmod(0o644)
        profile = str(own)
    fields = {"network": ALLOW} if network else {}
    folder = make_attacker(tmp_path / "plugin", profile=profile, read_paths="[]", **fields)
    (tmp_path / "root").mkdir()
    acts = ["read_secret", "connect_tcp", "make_memfd", "execute"]
    settings: dict[str, object] = {"secret": str(secret), "port": "1"}
    prefix = without_namespaces(tmp_path / "root") if degraded else []
    seen = observe(folder, work, acts, settings, user=user, prefix=prefix)["acts"]
    for act in acts:
        assert seen[act]["confined"]["degraded"] is degraded, seen[act]
        assert seen[act]["confined"]["seccomp_profile"] == profile
    assert seen["read_secret"]["log"] == [f"read_secret answered {errno.EPERM}"]
    assert seen["connect_tcp"]["log"] == [f"connect_tcp answered {errno.EPERM}"]
    assert seen["make_memfd"]["log"] == [f"make_memfd answered {errno.EPERM}"]
    assert seen["execute"]["causes"] == ["forbidden-call"]
