"""What tests of the sandbox share: as whom they are tried, what is aimed at, and the program that tries it outside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.support import Aim, compile_c, inheritable, make_aim, users


def name_of(user: int) -> str:
    return "root" if user == 0 else "user"


@pytest.fixture(params=users(), ids=name_of)
def user(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def work(user: int) -> Iterator[Path]:
    """A folder of the user's. Not below pytest's own folder: that is closed to others, and so to the ordinary user."""
    with tempfile.TemporaryDirectory(prefix="supervm-work-") as name:
        os.chown(name, user, user)
        yield Path(name)


@pytest.fixture(scope="module", params=users(), ids=name_of)
def aim(request: pytest.FixtureRequest) -> Iterator[Aim]:
    with tempfile.TemporaryDirectory(prefix="supervm-aim-") as name:
        yield from make_aim(request.param, Path(name))


@pytest.fixture(scope="session")
def control() -> Iterator[Path]:
    """The program that tries attacks outside, where every user may run it."""
    with tempfile.TemporaryDirectory(prefix="supervm-control-") as name:
        Path(name).chmod(0o755)
        yield compile_c("control.c", Path(name) / "control")


@pytest.fixture(scope="module")
def inherited() -> Iterator[list[int]]:
    yield from inheritable()
