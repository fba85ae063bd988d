"""The shipped plugins, built as an author would build them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.nodes.conftest import bitcoind_folder

__all__ = ["bitcoind_folder", "blockfiles", "hello"]

PLUGINS = Path(__file__).parents[2] / "plugins"


def build(name: str) -> Path:
    """Runs ``make`` in a plugin's folder; gives the library."""
    made = subprocess.run(["make", "-C", str(PLUGINS / name)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return PLUGINS / name / f"{name}.so"


@pytest.fixture(scope="session")
def blockfiles() -> Path:
    return build("bitcoin-blockfiles")


@pytest.fixture(scope="session")
def hello() -> Path:
    return build("hello")
