"""Many plugins and stuck readers cost what is stated, and hold nobody up; for the whole number see ``capacity``."""

from __future__ import annotations

import resource

import pytest

from tests.remote.capacity import run


def test_a_part_of_the_number_is_held_within_its_part_of_the_bound() -> None:
    found = run(idle=100, streaming=10)
    assert found.held, found


@pytest.mark.nodes
@pytest.mark.timeout(300)
def test_the_whole_number_is_held_within_the_bound() -> None:
    """Takes a minute, so it is run with what takes long."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        found = run(idle=1_000, streaming=100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.held, found
