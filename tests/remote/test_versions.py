"""``http2.py`` looks into four libraries: it is read again before another version of them is pinned, and serves with no other."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest
import trio

from supervm_rt import EventKind
from supervm_rt.errors import HostError
from supervm_rt.transports.remote import versions
from supervm_rt.transports.remote.versions import CHECKED, bounds, unchecked
from tests.remote.support import serving

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", CHECKED)
def test_the_versions_are_those_that_it_was_written_for(name: str) -> None:
    assert metadata.version(name) == CHECKED[name]


@pytest.mark.parametrize("extra", ["grpc", "dev"])
def test_an_installation_is_held_to_them(extra: str) -> None:
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    assert {f"{name}{bounds(checked)}" for name, checked in CHECKED.items()} <= set(required)
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert {f"{name}=={checked}" for name, checked in CHECKED.items()} <= set(pinned)


def installed(**found: str) -> mock._patch[object]:
    """As if these were."""

    def version(name: str) -> str:
        text = found.get(name, CHECKED[name])
        if not text:
            raise metadata.PackageNotFoundError(name)
        return text

    return mock.patch.object(versions, "version", version)


@pytest.mark.parametrize("name", CHECKED)
def test_what_is_let_in(name: str) -> None:
    major, minor, patch = map(int, CHECKED[name].split("."))
    with installed():
        assert unchecked() == []
    for later in (f"{major}.{minor}.{patch + 1}", f"{major}.{minor}.{patch + 20}.post1", f"{major}.{minor}.{patch}.1+local"):
        with installed(**{name: later}):
            (line,) = unchecked()
            assert line.startswith(f"{name} {later} is installed; ")
    with installed(**{name: ""}):
        assert unchecked() == []
    others = (
        f"{major}.{minor + 1}.0",
        f"{major + 1}.0",
        f"{major}.{minor}.{patch + 1}rc1",
        f"{major}.{minor + 1}.dev0",
        "unknown",
    )
    for other in (*others, *([f"{major}.{minor}.{patch - 1}"] if patch else [f"{major}.{minor - 1}.9"] if minor else [])):
        with installed(**{name: other}), pytest.raises(HostError, match="checked with") as raised:
            unchecked()
        assert raised.value.remedy == f"pip install '{name}{bounds(CHECKED[name])}'"


def test_a_node_does_not_serve_with_others_and_says_what_it_serves_with(tmp_path: Path) -> None:
    async def main() -> None:
        with installed(h2="5.0.0"), pytest.raises(HostError, match=r"gRPC is not served with h2 5\.0\.0: "):
            async with serving(tmp_path):
                pass
        with installed(hpack="4.2.9"):
            async with serving(tmp_path) as node:
                (event,) = node.seen.of(EventKind.REMOTE_UNCHECKED)
                assert event.message == "hpack 4.2.9 is installed; the bounds on what peers may do were checked with hpack 4.2.0"
        async with serving(tmp_path) as node:
            assert not node.seen.of(EventKind.REMOTE_UNCHECKED)

    trio.run(main)
