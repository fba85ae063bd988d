"""Many plugins and stuck readers cost what is stated, and hold nobody up; for the whole number see ``capacity``."""

from __future__ import annotations

from tests.remote.capacity import run


def test_a_part_of_the_number_is_held_within_its_part_of_the_bound() -> None:
    found = run(idle=100, streaming=10)
    assert found.held, found
